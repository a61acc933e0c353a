"""Completions of many prompts, the likeliest or drawn, free or held to the form."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from more_r1.models.decode import Chooser, decode, stop_ids, vision_ids
from more_r1.models.engine import Model
from more_r1.models.form import FormKeeper
from more_r1.models.load import Backbone
from more_r1.models.sampling import Sampling, sample
from more_r1.reasoning.prompt import Prompt
from more_r1.schema import Schema


def generate(
    model: Model,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    progress: Callable[[int], None] | None = None,
    keep_form: Schema | None = None,
    *,
    types: bool = False,
    sampling: Sampling | None = None,
    seeds: Sequence[int] = (),
) -> list[str]:
    """The most likely completion of each prompt, token by token, without the end of sequence.

    With `keep_form` the form is kept by force and the answer is a label of that schema, see form.py, with `types`, too, one
    that the types of step 4 allow, if it names them; `max_new_tokens` must leave room for it. With `sampling` and a seed for
    each prompt completions are drawn. A text ends at the end of sequence, a drawn one with `</answer>`,
    too, or after `max_new_tokens`. Which prompts are asked together changes nothing but rounding; prompts that begin alike are
    fastest side by side. `progress` is told how many prompts are done.
    """
    if not isinstance(model, Backbone):
        return model.generate(prompts, max_new_tokens, progress, keep_form, types=types, sampling=sampling, seeds=seeds)
    backbone = model
    encoder, stops = backbone.encoder, stop_ids(backbone)
    chooser: Chooser = Greedy(backbone)
    if keep_form is not None:
        rows = len(prompts)
        chooser = FormKeeper(backbone, keep_form, max_new_tokens, rows, types=types, sampling=sampling, seeds=seeds)
    elif sampling is not None:
        groups = sample(backbone, prompts, [[seed] for seed in seeds], sampling, max_new_tokens, progress)
        return [rollout.text for (rollout,) in groups]
    completions = decode(backbone, map(encoder.prompt, prompts), max_new_tokens, chooser, progress)
    return [encoder.decode(ids[:-1] if ids[-1] in stops else ids) for ids in completions]


class Greedy:
    """The most likely token each time."""

    def __init__(self, backbone: Backbone) -> None:
        self.stops, self.banned = stop_ids(backbone), vision_ids(backbone)

    def choose(self, logits: Tensor, rows: Sequence[int]) -> list[int]:
        """As models.decode.Chooser has it."""
        logits[:, self.banned] = -torch.inf
        return logits.argmax(-1).tolist()

    def ends(self, row: int, ids: Sequence[int]) -> bool:
        """As models.decode.Chooser has it."""
        return ids[-1] in self.stops
