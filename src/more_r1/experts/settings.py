"""The settings of an expert behind an OpenAI-compatible endpoint: whom to ask, what to send, how fast, at which prices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from more_r1.experts.question import chat_messages
from more_r1.reasoning.prompt import Part, Picture
from more_r1.training.recipe import Recipe

# Of the chat template, for which no server says what it takes.
_FRAME = 20


class OpenAI(Recipe):
    """An endpoint of the OpenAI protocol: OpenAI's own, vLLM, `transformers serve`, Ollama ..."""

    kind: Literal["openai"]
    model: str
    base_url: str = Field(default="https://api.openai.com/v1", pattern=r"^https?://")
    key_env: str | None = None
    """The environment variable that holds the key; without it none is sent."""
    mode: Literal["live", "batch"] = "live"
    """`live`: one request a pair. `batch`: OpenAI's Batch API, cheaper and within a day."""
    max_tokens: int = Field(default=1500, ge=1)
    """Most tokens of an answer, hidden reasoning included."""
    max_tokens_name: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    """What the endpoint calls this limit; some older servers know only `max_tokens`."""
    temperature: float | None = Field(default=None, ge=0)
    """Sent only if given: some models refuse it."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """More fields of a request's body, as the endpoint has them, such as `reasoning_effort: low`."""
    whole_pixels: int = Field(default=1024 * 28 * 28, ge=56 * 56)
    """Most pixels of the whole picture."""
    crop_pixels: int = Field(default=256 * 28 * 28, ge=56 * 56)
    """Most pixels of the crop."""
    detail: Literal["low", "high", "auto"] | None = None
    """OpenAI's setting of a picture; sent only if given."""
    image_tokens: int = Field(default=1105, ge=0)
    """Tokens that a picture is taken for in estimates: as many as it can cost, see the provider's price list."""
    price_in: float | None = Field(default=None, ge=0)
    """Price of a million tokens that are sent; in batch mode the batch price."""
    price_out: float | None = Field(default=None, ge=0)
    """Price of a million tokens that come back."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Most requests under way at a time."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """Of both ways together; a request counts at its most until its answer is there."""
    timeout: float = Field(default=180, gt=0)
    """Seconds that a request may take."""
    transport_tries: int = Field(default=6, ge=1)
    """Requests that one call may take, where the endpoint is busy, down or answers nonsense."""
    first_wait: float = Field(default=1.0, gt=0)
    """Seconds before the second request, about; they double each time."""
    longest_wait: float = Field(default=120.0, gt=0)
    """Most seconds between two requests of a call, also where `Retry-After` asks for more."""
    poll: float = Field(default=30.0, gt=0)
    """Seconds from one look at a batch to the next."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("give both price_in and price_out, or neither")
        if taken := {"model", "messages", "n", "stream", self.max_tokens_name} & self.extra.keys():
            raise ValueError(f"extra.{min(taken)}: is set elsewhere or cannot be set")
        return self

    def body(self, parts: Sequence[Part]) -> dict[str, Any]:
        """The body of a request. Raises DocumentError if a picture cannot be read."""
        body = {"model": self.model, "messages": chat_messages(parts, self.detail), self.max_tokens_name: self.max_tokens}
        return body | ({} if self.temperature is None else {"temperature": self.temperature}) | self.extra

    def estimate(self, parts: Sequence[Part]) -> int:
        """Tokens to be sent: a token for three bytes of text, more than English takes, and `image_tokens` a picture."""
        tokens = (self.image_tokens if isinstance(part, Picture) else math.ceil(len(part.encode()) / 3) for part in parts)
        return sum(tokens) + _FRAME

    def cost(self, tokens_in: int, tokens_out: int) -> float | None:
        """In the currency of the prices; None without prices."""
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6
