"""A text model for one new token a row: `Step` for those built as Qwen2.5-VL's, `OwnStep` for all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from more_r1.models.families.family import Family
from more_r1.models.forest import asked_at

# Matrices are copied for decoding on the CPU, which makes it about half as long again as fast; not those of a larger model.
PACKED_BYTES = 2**30

Attend = Callable[[int, Tensor, Tensor, Tensor, float, int | None], Tensor]
"""From layer, query [rows, heads, dim], key and value [rows, kv heads, dim], scale and window to [rows, heads, dim]."""


Stepper = Callable[[Tensor, Tensor, Attend], Tensor]
"""The logits [rows, vocabulary] that follow tokens [rows] at positions [rows]."""


def stepper(model: Any, family: Family, rows: int) -> Stepper:
    """For about `rows` rows, while the weights stay as they are. No gradients."""
    return Step(model, rows) if family.plain else OwnStep(model, family)


class OwnStep:
    """By the model's own `forward`: one sequence of all the tokens, in which each is a row by itself."""

    def __init__(self, model: Any, family: Family) -> None:
        self.text, self.head, self.axes = model.get_decoder(), model.lm_head, family.axes

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """As Stepper has it."""
        where = asked_at(positions.expand(self.axes, 1, -1))
        hidden: Tensor = self.text(input_ids=ids[None], forest=_Rows(attend), **where).last_hidden_state
        logits: Tensor = self.head(hidden[0])
        return logits


class _Rows:
    """The layout of one sequence whose tokens are rows."""

    def __init__(self, attend: Attend) -> None:
        self._attend = attend

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """As models.attention.Layout has it."""
        q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
        return self._attend(layer, q, k, v, scale, window).transpose(0, 1)[None]


class Step:
    """Module by module as transformers does it, of a text model without norms on queries and keys.

    For so few tokens most of the time would go into what the model's own `forward` does in between, into many small products,
    and into reading matrices that do not lie as the product would like them.
    """

    def __init__(self, model: Any, rows: int) -> None:
        self.text = model.model.language_model
        matrices = [part.weight for part in [*self.text.layers.modules(), model.lm_head] if isinstance(part, nn.Linear)]
        packs = sum(weight.nbytes for weight in matrices) <= PACKED_BYTES
        self.head = _together([model.lm_head], rows, packs)
        self.layers = []
        for layer in self.text.layers:
            own, mlp = layer.self_attn, layer.mlp
            groups = ([own.q_proj, own.k_proj, own.v_proj], [own.o_proj], [mlp.gate_proj, mlp.up_proj], [mlp.down_proj])
            self.layers.append((layer, *(_together(group, rows, packs) for group in groups)))

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """As Stepper has it."""
        hidden = self.text.embed_tokens(ids)
        cos, sin = (part[0, :, None] for part in self.text.rotary_emb(hidden, positions.expand(3, 1, -1)))
        dim, heads = cos.shape[-1], self.text.config.num_key_value_heads
        sin = torch.cat([-sin[..., : dim // 2], sin[..., dim // 2 :]], dim=-1)
        for number, (layer, project, out, widen, narrow) in enumerate(self.layers):
            # Queries, keys and values, [rows, heads, dim]; the first two are turned.
            parts = project(_norm(layer.input_layernorm, hidden)).view(len(ids), -1, dim)
            turned, value = parts[:, :-heads], parts[:, -heads:]
            turned = torch.addcmul(turned * cos, turned.roll(dim // 2, -1), sin)
            own = layer.self_attn
            seen = attend(number, turned[:, :-heads], turned[:, -heads:], value, own.scaling, own.sliding_window)
            hidden = hidden + out(seen.flatten(1))
            gate, up = widen(_norm(layer.post_attention_layernorm, hidden)).chunk(2, dim=-1)
            hidden = hidden + narrow(layer.mlp.act_fn(gate) * up)
        return self.head(_norm(self.text.norm, hidden))


def _norm(norm: Any, hidden: Tensor) -> Tensor:
    return rms_norm(hidden, hidden.shape[-1:], norm.weight, norm.variance_epsilon)


def _together(linears: Sequence[Any], rows: int, packs: bool) -> Callable[[Tensor], Tensor]:
    """What these make of one input, side by side: one product on the CPU, of a matrix as oneDNN reads it fastest.

    With adapters, on other devices and in other precisions each stays as it is.
    """
    plain = all(type(one) is nn.Linear and one.weight.dtype == torch.float32 and one.weight.is_cpu for one in linears)
    if not (packs and plain and torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]
        alone: Callable[[Tensor], Tensor] = linears[0]
        return alone if len(linears) == 1 else lambda hidden: torch.cat([one(hidden) for one in linears], dim=-1)
    weight = torch.ops.mkldnn._reorder_linear_weight(torch.cat([one.weight for one in linears]).detach(), rows)
    bias = None if linears[0].bias is None else torch.cat([one.bias for one in linears]).detach()
    return lambda hidden: torch.ops.mkldnn._linear_pointwise(hidden, weight, bias, "none", [], "")
