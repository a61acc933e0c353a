"""Stage 1's data without hand work: draw the pairs, ask an expert to reason them out, keep what the filter lets through.

OUT/traces.jsonl has every call, so a run that was killed goes on where it was and pays for nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from more_r1.experts.desk import Desk, Figures, Request
from more_r1.experts.filter import Bounds
from more_r1.experts.journal import TRACES, Journal
from more_r1.experts.keys import read_key, refuse_keys
from more_r1.experts.money import Budget, Plan, plan_calls
from more_r1.experts.oracle import Oracle, ask_oracle
from more_r1.experts.question import ask_parts, chat_messages, shown
from more_r1.experts.reply import ExpertError
from more_r1.experts.self_taught import SelfTaught, ask_self_taught
from more_r1.experts.settings import OpenAI
from more_r1.schema import Schema
from more_r1.training.examples import draw
from more_r1.training.recipe import GivenSchema, Recipe, RecipeError
from more_r1.training.run import Run
from more_r1.training.samples import Sample, read_samples

# Settings that change nothing in what is asked or how it is judged: they may differ between a run and its resumption.
_FREE = (
    "key_env",
    "mode",
    "price_in",
    "price_out",
    "image_tokens",
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "timeout",
    "transport_tries",
    "first_wait",
    "longest_wait",
    "poll",
)


class AnnotateRecipe(Recipe):
    """Which pairs, which expert, and what is let through."""

    out: Path
    """The folder of traces.jsonl."""
    data: Path
    """A directory in the MORE layout; its train split is drawn from."""
    relations: GivenSchema = Field(default_factory=Schema.more, alias="schema")
    """The labels of the data: a YAML file (`schema: my.yaml`); by default MORE's."""
    share: float = Field(default=0.25, gt=0, le=1)
    """Share of the training pairs that is drawn from every class: with stage 1's `share` and `draw_seed`, its pairs."""
    draw_seed: int = 0
    bounds: Bounds = Bounds()
    tries: int = Field(default=3, ge=1)
    """Calls that a pair may take: what is rejected is asked for again, with the reason."""
    max_cost: float | None = Field(default=None, ge=0)
    """No call is made that could take the cost of all runs of this folder above it."""
    expert: Annotated[OpenAI | Oracle | SelfTaught, Field(discriminator="kind")]
    """Whom to ask; each kind's settings are in a file of its own."""

    @model_validator(mode="before")
    @classmethod
    def _no_keys(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            refuse_keys(given)
        return given

    @model_validator(mode="before")
    @classmethod
    def _hand_on(cls, given: Any) -> Any:
        """Who teaches itself learns the same relations."""
        expert = given.get("expert") if isinstance(given, dict) else None
        if not isinstance(expert, dict) or expert.get("kind") != "self_taught":
            return given
        sft = expert.get("sft") or {}
        if not isinstance(sft, dict):
            return given  # pydantic says what is wrong
        return {**given, "expert": {**expert, "sft": {"schema": given.get("schema"), **sft}}}

    @model_validator(mode="after")
    def _one_schema(self) -> Self:
        if isinstance(self.expert, SelfTaught) and self.expert.sft.relations != self.relations:
            raise ValueError("expert.sft.schema is not that of the recipe; give schema once, beside data")
        return self

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.max_cost is None:
            return self
        if not isinstance(self.expert, OpenAI):
            raise ValueError(f"max_cost: an expert of kind {self.expert.kind} costs nothing; leave it out")
        if self.expert.price_in is None:
            raise ValueError("max_cost: give expert.price_in and expert.price_out, a million tokens each, to count with")
        return self

    def asked(self) -> AnnotateRecipe:
        """What another run in the same folder must share: the recipe with all else at its defaults."""
        fields = type(self.expert).model_fields
        same = {name: fields[name].default for name in _FREE if name in fields}
        return self.model_copy(update={"expert": self.expert.model_copy(update=same), "tries": 3, "max_cost": None})


def run_annotate(recipe: AnnotateRecipe, tell: Callable[[Figures], None]) -> Figures:
    """Ask about every drawn pair that is not done and record what comes back; the figures of the whole folder.

    `tell` is given them after every record. They say why, where the run stopped early for `max_cost`. Raises RecipeError for a
    folder with other questions or in use, ExpertError where the expert cannot be asked on; what is recorded stays.
    """
    samples = drawn(recipe)
    run = Run(recipe.asked(), recipe.out)
    if isinstance(recipe.expert, OpenAI):
        _extra()
        read_key(recipe.expert.key_env)
    run.begin()
    with Journal(recipe.out) as journal:
        match recipe.expert:
            case Oracle():
                tries = 1  # it says the same again
            case SelfTaught():
                tries = 2 * recipe.expert.tries  # without the gold, and with it
            case OpenAI():
                tries = recipe.tries
        desk = Desk(samples, journal, recipe.relations, recipe.bounds, tries, tell)
        match recipe.expert:
            case Oracle():
                ask_oracle(recipe.expert, recipe.data, desk)
            case SelfTaught():
                where = recipe.data, recipe.share, recipe.draw_seed, recipe.bounds, recipe.out
                ask_self_taught(recipe.expert, samples, *where, desk)
            case OpenAI(mode="live"):
                from more_r1.experts.batch import under_way
                from more_r1.experts.live import ask_live

                if under_way(recipe.out):
                    mend = "run again with expert.mode=batch, which collects them"
                    raise RecipeError(f"{recipe.out}: batches are under way there and will be paid for; {mend}")
                ask_live(recipe.expert, desk, Budget(recipe.expert, recipe.max_cost, journal))
            case OpenAI():
                from more_r1.experts.batch import ask_in_batches

                ask_in_batches(recipe.expert, desk, Budget(recipe.expert, recipe.max_cost, journal))
        return desk.figures


def drawn(recipe: AnnotateRecipe) -> list[Sample]:
    """The pairs that stage 1 would draw with the same share and seed."""
    train = read_samples(recipe.data, "train", recipe.relations)
    return [train[index] for index in draw([sample.label for sample in train], recipe.share, recipe.draw_seed)]


def show(recipe: AnnotateRecipe, count: int) -> list[str]:
    """What an endpoint would be sent about the first drawn pairs, as text to read. RecipeError if the expert is no endpoint."""
    settings = _endpoint(recipe, "show")
    parts = (ask_parts(one, recipe.relations, settings.whole_pixels, settings.crop_pixels) for one in drawn(recipe)[:count])
    return [shown(chat_messages(part, settings.detail)) for part in parts]


def plan(recipe: AnnotateRecipe) -> Plan:
    """What is still to be asked and what it may cost, asking nobody. RecipeError if the expert is no endpoint."""
    settings = _endpoint(recipe, "plan")
    samples = drawn(recipe)
    Run(recipe.asked(), recipe.out)
    if not (recipe.out / TRACES).exists():
        return plan_calls(settings, recipe.relations, map(Request, samples), recipe.tries, recipe.max_cost, 0.0)
    with Journal(recipe.out) as journal:
        desk = Desk(samples, journal, recipe.relations, recipe.bounds, recipe.tries, lambda _: None)
        spent = Budget(settings, recipe.max_cost, journal).spent
        return plan_calls(settings, desk.schema, desk.pending(), recipe.tries, recipe.max_cost, spent)


def _endpoint(recipe: AnnotateRecipe, what: str) -> OpenAI:
    if not isinstance(recipe.expert, OpenAI):
        raise RecipeError(f"expert.kind={recipe.expert.kind}: sends nothing and costs nothing; --{what} is for kind=openai")
    return recipe.expert


def _extra() -> None:
    if find_spec("openai") is None or find_spec("tenacity") is None:
        raise ExpertError("expert.kind=openai needs two more packages: pip install 'more-r1[expert]'")
