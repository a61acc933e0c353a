"""Fine-tuning with a classification head (models/classifier.py): one step on the cross-entropy of the gold labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import set_seed
from torch.nn.functional import cross_entropy

from more_r1.models.classifier import Asked, Classifier, Head
from more_r1.models.load import Backbone
from more_r1.reasoning.trace import read_answer
from more_r1.schema import Schema
from more_r1.training.balance import balanced
from more_r1.training.examples import Batch
from more_r1.training.learner import Trainer


def with_head(backbone: Backbone, schema: Schema, seed: int) -> Classifier:
    """A fresh head, random by the seed, on a backbone that is asked without reasoning. The language head learns nothing."""
    set_seed(seed)
    model = backbone.model
    # Whether the two are one, a configuration may say at the top, in the part of its text model, or nowhere.
    if model.lm_head.weight is not model.get_input_embeddings().weight:
        model.lm_head.requires_grad_(False)
    head = Head(model.config.text_config.hidden_size, len(schema.labels)).to(model.device)
    return Classifier(backbone, head, schema.labels)


def classify(schema: Schema) -> Callable[[Trainer, Batch], dict[str, Any]]:
    """The update: the examples' completions are answers, the policy a HeadedModel."""

    def update(trainer: Trainer, batch: Batch) -> dict[str, Any]:
        accelerator = trainer.accelerator
        prompts, count = [example.prompt for example in batch.examples], len(batch.examples)
        examples = balanced(batch.examples, prompts, [1] * count, trainer.backbone.encoder, accelerator)
        # DDP needs a backward pass of every process, if only one that counts for nothing.
        asked = Asked.build([e.prompt for e in examples or batch.examples[:1]], trainer.backbone.encoder)
        logits = trainer.policy(asked)
        gold = [schema.labels.index(str(read_answer(e.completion, schema, "none"))) for e in examples]
        targets = torch.tensor(gold, device=logits.device, dtype=torch.long)
        total = cross_entropy(logits[: len(gold)], targets, reduction="sum") if gold else logits.sum() * 0
        right = (logits[: len(gold)].argmax(-1) == targets).sum()
        sums = torch.stack([total.detach(), right.to(total.dtype)])
        loss, rights = accelerator.reduce(sums).tolist()
        trainer.backward(total / count)
        norm = trainer.step(loss / count)
        event = {"epoch": round(batch.epoch, 4), "loss": loss / count, "grad_norm": norm}
        return event | {"accuracy": rights / count}

    return update
