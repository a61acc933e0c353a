"""What can answer besides a backbone: one with a head on it (models/classifier.py), or a model elsewhere (models/vllm)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from more_r1.models.load import Backbone
from more_r1.models.processor import Encoder
from more_r1.models.sampling import Sampling
from more_r1.reasoning.prompt import Prompt, PromptForm
from more_r1.schema import Schema


class EngineError(RuntimeError):
    """An engine that does not start or has died; the message names the mend.

    Not a ValueError: no record is at fault, so an archive stops, to go on later, instead of leaving its records out.
    """


class Engine(Protocol):
    """Answers prompts in the form in which its model is to be asked. Raises EngineError where it cannot go on."""

    @property
    def encoder(self) -> Encoder:
        """What turns prompts into the model's tokens."""
        ...

    @property
    def form(self) -> PromptForm:
        """How the model is to be asked."""
        ...

    @property
    def temperature(self) -> float:
        """Of the model's confidence, as Backbone has it."""
        ...

    @property
    def schema(self) -> Schema:
        """The relations that the model was trained for."""
        ...

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
        """As models.generate.generate has it."""
        ...

    def label_scores(
        self, prompts: Sequence[Prompt], completions: Sequence[str], schema: Schema
    ) -> list[tuple[float, ...] | None]:
        """As models.labels.label_scores has it."""
        ...


Model = Backbone | Engine
