"""What comes back from an expert, and how an answer of the OpenAI protocol is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

REFUSAL, CONTENT_FILTER, EMPTY, ERROR = "refusal", "content_filter", "empty", "error"


class ExpertError(ValueError):
    """An expert that cannot be asked on; the message says why, and what to do."""


class UnreadableError(ValueError):
    """A body that is no answer of the protocol: cut short, not JSON, or something else."""


@dataclass(frozen=True)
class Reply:
    """One call's outcome. `verdict` is one of the above where there is nothing to judge, None where there is.

    `answered` is False where no request of the call was answered, so that the endpoint may be at fault.
    """

    expert: str
    fingerprint: str
    completion: str = ""
    verdict: str | None = None
    reason: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None
    answered: bool = True


@dataclass(frozen=True)
class Answer:
    """What a body says: a completion or why there is none, and the tokens that are charged."""

    completion: str = ""
    verdict: str | None = None
    reason: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None


class _Open(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Message(_Open):
    content: str | None = None
    refusal: str | None = None
    # Where some servers put what stands in <think> tags.
    reasoning_content: str | None = None


class _Choice(_Open):
    message: _Message = _Message()
    finish_reason: str | None = None


class _Usage(_Open):
    prompt_tokens: int | None = Field(default=None, ge=0, le=10**9)
    completion_tokens: int | None = Field(default=None, ge=0, le=10**9)


class _Body(_Open):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


def read_answer(body: bytes) -> Answer:
    """Read the body of a chat completion. Raises UnreadableError."""
    try:
        read = _Body.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UnreadableError(f"the answer is no chat completion ({first['msg'][:100]})") from None
    if read.error is not None and not read.choices:
        raise UnreadableError(f"the answer is an error ({str(read.error)[:200]})")
    usage = read.usage or _Usage()
    tokens = usage.prompt_tokens, usage.completion_tokens
    if not read.choices:
        return Answer("", EMPTY, "the answer has no choices", *tokens)
    choice = read.choices[0]
    text = _whole(choice.message)
    if choice.finish_reason == "content_filter":
        return Answer(text, CONTENT_FILTER, "the provider's filter cut the answer", *tokens)
    if choice.message.refusal:
        return Answer(text, REFUSAL, choice.message.refusal[:200], *tokens)
    if not text.strip():
        return Answer(text, EMPTY, f"the answer is blank (finish_reason {choice.finish_reason})", *tokens)
    if choice.finish_reason == "length":
        return Answer(text, None, "it was cut off at the most tokens; write less", *tokens)
    return Answer(text, None, "", *tokens)


def _whole(message: _Message) -> str:
    """The text as the model wrote it, also where the server took the steps for hidden reasoning and set them apart."""
    text, apart = message.content or "", message.reasoning_content or ""
    return f"<think>{apart}</think>{text}" if "<think>" not in text and apart.lstrip().startswith("Step 1:") else text
