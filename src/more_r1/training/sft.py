"""Stage 1, the cold start: learn to reason in six steps from traces of a part of the training pairs.

With `form.reasoning: none` the completion is the gold label alone: the paper's baseline, for which no traces are needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from more_r1.formats.traces import Key, read_completions
from more_r1.models.classifier import HeadedModel, save_classifier
from more_r1.models.engine import Model
from more_r1.models.load import Backbone, load_backbone
from more_r1.models.lora import Lora
from more_r1.models.processor import Encoder
from more_r1.reasoning.prompt import PromptForm
from more_r1.reasoning.trace import Trace, read_answer
from more_r1.schema import Schema
from more_r1.training.adapters import learning
from more_r1.training.classify import classify, with_head
from more_r1.training.examples import Batch, Epochs, Example, draw, launched
from more_r1.training.fit import fit
from more_r1.training.learner import Learned, TrainingRecipe, Update, finished, learn
from more_r1.training.recipe import GivenForm, GivenSchema, RecipeError
from more_r1.training.run import Run
from more_r1.training.samples import Sample, read_samples, some, validate
from more_r1.training.schedule import rates, validation_steps


class SftRecipe(TrainingRecipe):
    """Supervised fine-tuning on completions; the defaults are the paper's where it gives them."""

    purpose = "Stage 1 of MORE-R1: fine-tuned to say how an object of a picture relates to an entity of its headline."

    model: str
    """A model folder or hub name."""
    data: Path
    """A directory in the MORE layout."""
    relations: GivenSchema = Field(default_factory=Schema.more, alias="schema")
    """The labels of the data: a YAML file (`schema: my.yaml`); by default MORE's."""
    traces: Path | Literal["oracle"] = "oracle"
    """JSONL of `more-r1 annotate`, or any with `img_id`, `object`, `span`, `completion`; of records with a verdict, those that
    are accepted and final. `oracle` is the embedded benchmark's own, DATA/oracle/train.jsonl."""
    share: float = Field(default=0.25, gt=0, le=1)
    """Share of the training pairs that is drawn from every class; the rest is for stage 2."""
    draw_seed: int = 0
    """Of the draw of pairs and of the validation pairs, apart from `seed`: seeds can share their pairs."""
    form: GivenForm = PromptForm()
    head: bool = False
    """Learn a classification head instead of words: the baseline of the classification family, with `form.reasoning: none`."""
    decision_weight: float = Field(default=1.0, gt=0)
    """Weight of the tokens of steps 3 and 6 and of the answer, where the decisions fall; 1 is the paper's plain loss."""
    epochs: int = Field(default=20, ge=1)
    lr: float = Field(default=1e-4, gt=0)
    batch_pairs: int = Field(default=16, ge=1)
    """Most pairs of a step."""
    lora: Lora | None = None
    """Train adapters only; they are saved merged into the model, and beside it in `adapter/` as peft has them."""
    freeze_vision: bool = True
    validate_every: float = Field(default=1.0, gt=0)
    """Epochs from one validation to the next; the last step is always validated."""
    valid_pairs: int = Field(default=500, ge=1)
    """How many pairs of the valid split are scored; all of them if it has fewer."""
    max_new_tokens: int = Field(default=512, ge=1)

    @model_validator(mode="after")
    def _silent(self) -> Self:
        if self.head and self.form.reasoning != "none":
            raise ValueError("head=true learns labels, no reasoning; set form.reasoning=none")
        if self.head and self.lora:
            raise ValueError("head=true trains all weights; leave lora out")
        if self.head and self.attention == "flex":
            raise ValueError("attention=flex is for training on words; leave it out with head=true")
        return self

    @property
    def trace_file(self) -> Path:
        """Where the traces are."""
        return self.data / "oracle" / "train.jsonl" if self.traces == "oracle" else self.traces


def run_sft(recipe: SftRecipe, also: Callable[[Example, PromptForm], Example] | None = None) -> Learned:
    """Fine-tune `recipe.model`; the best model by validation F1 is `best/` in the run folder, the last one `final/`.

    With `also`, what it makes of each example and the form is learnt, too. A finished run is left as it is, an unfinished one
    is gone on with. Raises RecipeError where the folder holds another run and where data or traces are not fit for it.
    """
    console = Console(quiet=not launched().is_main_process)
    run = Run(recipe, recipe.out)
    if done := finished(run, console):
        return done
    schema = recipe.relations
    train, valid = read_samples(recipe.data, "train", schema), read_samples(recipe.data, "valid", schema)
    disable_progress_bar()  # transformers' own; it would tear ours
    backbone = load_backbone(recipe.model)
    backbone = replace(backbone, form=recipe.form.over(backbone.form), schema=schema)
    save = learning(backbone, recipe.lora, recipe.freeze_vision, recipe.model, recipe.seed)

    drawn = [train[index] for index in draw([sample.label for sample in train], recipe.share, recipe.draw_seed)]
    documents = _examples(recipe, backbone, schema, drawn)
    pairs = sum(map(len, documents))
    if also is not None:
        documents = [[*examples, *(also(example, backbone.form) for example in examples)] for examples in documents]
    batches = Epochs(documents, recipe.epochs, recipe.batch_pairs, recipe.seed)
    without = f", {len(drawn) - pairs} more have no usable trace" if pairs < len(drawn) else ""
    console.print(f"{pairs} of {len(train)} pairs, {len(documents)} documents{without}; {len(batches)} steps", soft_wrap=True)

    asked = some(valid, recipe.valid_pairs, recipe.draw_seed)
    model: Model = backbone
    update: Update[Batch] = fit
    policy = None
    if recipe.head:
        model = classifier = with_head(backbone, schema, recipe.seed)
        policy, save = HeadedModel(backbone.model, classifier.head), partial(save_classifier, classifier)
        update = classify(schema)
    return learn(
        backbone,
        recipe,
        run,
        batches,
        rates(recipe.lr, len(batches), recipe.warmup, recipe.schedule),
        update,
        validate=lambda: validate(model, schema, asked, recipe.max_new_tokens),
        validate_at=validation_steps(len(batches), recipe.epochs, recipe.validate_every),
        policy=policy,
        save=save,
    )


def completions(recipe: SftRecipe, samples: Sequence[Sample], form: PromptForm) -> dict[Key, str]:
    """What stage 1 learns of each pair. A trace that breaks the form or ends in another label than the gold one is left out.

    Raises RecipeError where the traces cannot be read and where none of them is of use.
    """
    if form.reasoning == "none":
        return {sample.key: Trace((), sample.label).render() for sample in samples}
    try:
        traces = read_completions(recipe.trace_file)
    except OSError as error:
        raise RecipeError(
            f"traces={recipe.trace_file}: cannot be read ({error.strerror}); give a JSONL file of traces"
        ) from error
    schema = recipe.relations
    usable = {one.key: traces[one.key] for one in samples if read_answer(traces.get(one.key, ""), schema) == one.label}
    if not usable:
        raise RecipeError(f"{recipe.trace_file}: no usable trace for any of the {len(samples)} pairs that were drawn")
    return usable


def _examples(recipe: SftRecipe, backbone: Backbone, schema: Schema, samples: Sequence[Sample]) -> list[list[Example]]:
    """The examples by document."""
    form, learnt = backbone.form, completions(recipe, samples, backbone.form)
    documents: dict[str, list[Example]] = {}
    for sample in (one for one in samples if one.key in learnt):
        prompt, completion = sample.prompt(schema, form), learnt[sample.key]
        weight = 1.0 if form.reasoning == "none" else _weights(completion, recipe.decision_weight, backbone.encoder)
        documents.setdefault(sample.document.id, []).append(Example(prompt, completion, weight))
    return list(documents.values())


def _weights(completion: str, decision: float, encoder: Encoder) -> float | tuple[float, ...]:
    """A weight for each token of a trace: `decision` in steps 3 and 6 and the answer, 1 elsewhere."""
    if decision == 1:
        return 1.0
    # A step, with the space or line end before it, begins a token: what stands before it is as many tokens by itself.
    before = [re.split(rf"\s*\bStep {number}:", completion, maxsplit=1)[0] for number in (3, 4, 6)]
    start, end, last = (len(encoder.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in before)
    total = len(encoder.completion(completion))
    return tuple(decision if start <= token < end or token >= last else 1.0 for token in range(total))
