"""A classification head in place of words: the family of methods that the paper argues against, on the same backbone.

The object's state is the mean of the hidden states of its crop's tokens, the entity's that of its name's tokens in the
question, which have seen picture, headline and crop; a head of two layers makes logits of the labels of both. A model folder
with a head has a `head.safetensors` beside the weights, and answers `<answer>LABEL</answer>` without writing a token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from more_r1.models.decode import batches
from more_r1.models.forest import Forest
from more_r1.models.load import Backbone, fingerprint, save_backbone, with_weights
from more_r1.models.manner import HEAD_FILE, ModelError, load_manner
from more_r1.models.processor import Encoder
from more_r1.models.sampling import Sampling
from more_r1.reasoning.prompt import Prompt, PromptForm
from more_r1.reasoning.trace import Trace
from more_r1.schema import Schema

# Tokens of the prompts that are asked together.
ASKED_TOKENS = 16384
_ENTITY = "Entity: "


class Head(nn.Module):
    """Of hidden states of some width."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, labels)

    def forward(self, states: Tensor) -> Tensor:
        """States of object and entity side by side, [pairs, 2 x width] -> logits [pairs, labels]."""
        return self.out(nn.functional.gelu(self.hidden(states)))  # type: ignore[no-any-return]


class HeadedModel(nn.Module):
    """A model and a head on it: one forward call, so that DDP and autocast see it."""

    def __init__(self, model: nn.Module, head: Head) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(self, asked: Asked) -> Tensor:
        """Logits [pairs, labels], in float32."""
        device = next(self.head.parameters()).device
        inputs = asked.forest.inputs(device)
        hidden = self.model.model(**inputs).last_hidden_state[0].float()  # type: ignore[operator]
        parts = [
            torch.stack([hidden[torch.tensor(run, device=device)].mean(0) for run in runs])
            for runs in (asked.objects, asked.entities)
        ]
        return self.head(torch.cat(parts, dim=-1))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Asked:
    """Prompts as one forest; of each pair, which tokens of the row are its object's and which its entity's."""

    forest: Forest
    objects: tuple[tuple[int, ...], ...]
    entities: tuple[tuple[int, ...], ...]

    @classmethod
    def build(cls, prompts: Sequence[Prompt], encoder: Encoder) -> Asked:
        """Lay out the prompts. Raises ValueError for a prompt that is none of `build_prompt`."""
        forest = Forest.build([(encoder.prompt(prompt), (encoder.eos_id,)) for prompt in prompts], encoder)
        objects, entities = [], []
        for prompt, last in zip(prompts, forest.index.tolist(), strict=True):
            crop, name = _places(prompt, encoder)
            first = last + 1 - len(encoder.prompt(prompt)[-1].ids)
            objects.append(tuple(first + place for place in crop))
            entities.append(tuple(first + place for place in name))
        return cls(forest, tuple(objects), tuple(entities))


def _places(prompt: Prompt, encoder: Encoder) -> tuple[list[int], list[int]]:
    """Where in the pair's own segment its crop is, and where its entity's name."""
    ids, question = encoder.prompt(prompt)[-1].ids, prompt.segments[-1][-1]
    if not isinstance(question, str) or _ENTITY not in question:
        raise ValueError("a prompt without an entity at its end; make it by build_prompt")
    crop = [place for place, id in enumerate(ids) if id == encoder.image_id]
    coded = encoder.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)
    said, size = tuple(coded["input_ids"]), len(coded["input_ids"])
    # What stands beside the question are special tokens, so that it is tokenised as by itself.
    start = next(place for place in range(crop[-1] + 1, len(ids)) if ids[place : place + size] == said)
    named = question.rindex(_ENTITY) + len(_ENTITY)
    return crop, [start + token for token, (_, end) in enumerate(coded["offset_mapping"]) if end > named]


@dataclass
class Classifier:
    """A backbone with a head: an Engine (models/engine.py). `labels` are those of the head's logits, in their order."""

    backbone: Backbone
    head: Head
    labels: tuple[str, ...]

    @property
    def encoder(self) -> Encoder:
        return self.backbone.encoder

    @property
    def form(self) -> PromptForm:
        return self.backbone.form

    @property
    def temperature(self) -> float:
        return self.backbone.temperature

    @property
    def schema(self) -> Schema:
        return self.backbone.schema

    @property
    def fingerprint(self) -> str:
        """As `models.load.fingerprint`, of backbone and head."""
        digest = hashlib.sha256(fingerprint(self.backbone).encode())
        for weights in self.head.state_dict().values():
            digest.update(weights.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def generate(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        progress: Callable[[int], None] | None = None,
        keep_form: Schema | None = None,
        *,
        types: bool = False,
        sampling: Sampling | None = None,
        seeds: Sequence[int] = (),
    ) -> list[str]:
        """The likeliest label of each prompt, or one drawn by its seed, as the answer of a completion; never another text.

        Raises ModelError where `keep_form` has other labels than the head.
        """
        if keep_form is not None:
            self._same(keep_form)
        logits = self.logits(prompts, progress)
        if sampling is None:
            chosen = logits.argmax(-1).tolist()
        else:
            shares = (logits / sampling.temperature).softmax(-1).tolist()
            chosen = [Random(seed).choices(range(len(row)), row)[0] for row, seed in zip(shares, seeds, strict=True)]
        return [Trace((), self.labels[place]).render() for place in chosen]

    def label_scores(
        self, prompts: Sequence[Prompt], completions: Sequence[str], schema: Schema
    ) -> list[tuple[float, ...] | None]:
        """The log-probability of each label of the schema, in its order; the completions change nothing.

        Raises ModelError for a schema with other labels than the head's.
        """
        self._same(schema)
        places = [self.labels.index(label) for label in schema.labels]
        return [tuple(row) for row in self.logits(prompts).double().log_softmax(-1)[:, places].tolist()]

    def _same(self, schema: Schema) -> None:
        if strange := set(schema.labels) ^ set(self.labels):
            raise ModelError(f"the head was not trained on this schema ({min(strange)} is in one of the two); give its own")

    @torch.no_grad()
    def logits(self, prompts: Sequence[Prompt], progress: Callable[[int], None] | None = None) -> Tensor:
        """[prompts, labels]; prompts that begin alike are fastest side by side."""
        headed, found = HeadedModel(self.backbone.model, self.head), []
        rest, done = iter(prompts), 0
        for batch in batches(map(self.encoder.prompt, prompts), 1, ASKED_TOKENS):
            found.append(headed(Asked.build([next(rest) for _ in batch], self.encoder)).cpu())
            done += len(batch)
            if progress is not None:
                progress(done)
        return torch.cat(found) if found else torch.zeros(0, len(self.labels))


def load_model(name_or_dir: str | Path) -> Backbone | Classifier:
    """As `load_backbone`, with its head if the folder has one. Raises ModelError."""
    manner = load_manner(name_or_dir)
    backbone = with_weights(manner)
    if manner.head is None:
        return backbone
    try:
        with safe_open(manner.head, "pt") as stored:
            labels = json.loads(stored.metadata()["labels"])
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  no dict
        head = Head(backbone.model.config.text_config.hidden_size, len(labels))
        head.load_state_dict(weights)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{manner.head}: no head ({' '.join(str(error).split())[:300]}); train it anew") from error
    backbone = replace(backbone, form=backbone.form.model_copy(update={"reasoning": "none"}))
    return Classifier(backbone, head.to(backbone.model.device).eval(), tuple(labels))


def save_classifier(classifier: Classifier, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write the model folder with the head in it, complete or absent; the backbone in `dtype` if given, the head as it is."""
    metadata = {"labels": json.dumps(classifier.labels)}
    weights = {name: value.detach().contiguous().cpu() for name, value in classifier.head.state_dict().items()}
    save_backbone(classifier.backbone, folder, dtype, also=lambda partial: save_file(weights, partial / HEAD_FILE, metadata))
