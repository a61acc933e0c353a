"""The expert that knows all: the traces that came with the data, through the same filter and journal as anybody's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from more_r1.experts.desk import Desk
from more_r1.experts.reply import EMPTY, Reply
from more_r1.formats.traces import read_completions
from more_r1.training.recipe import Recipe, RecipeError


class Oracle(Recipe):
    """The embedded world, DATA/oracle/train.jsonl, or any file of traces with the same keys."""

    kind: Literal["oracle"]
    traces: Path | None = None
    """Another file than DATA/oracle/train.jsonl: JSONL of `img_id`, `object`, `span`, `completion`."""


def ask_oracle(settings: Oracle, data: Path, desk: Desk) -> None:
    """Settle all that is pending. RecipeError if the file cannot be read, FormatError for a line of it."""
    path = settings.traces or data / "oracle" / "train.jsonl"
    try:
        completions = read_completions(path)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); give expert.traces, or draw the data anew") from error
    for request in desk.pending():
        completion = completions.get(request.sample.key)
        digest = hashlib.sha256(repr(request.sample.key).encode("utf-8", "surrogatepass")).hexdigest()
        if completion is None:
            desk.settle(request, Reply("oracle", digest, verdict=EMPTY, reason="the file has no trace of this pair"))
        else:
            desk.settle(request, Reply("oracle", digest, completion))
