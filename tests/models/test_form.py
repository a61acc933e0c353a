"""Decoding that cannot break the form: even random weights answer with a trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from more_r1.formats import load_documents
from more_r1.models.generate import generate
from more_r1.models.load import Backbone
from more_r1.reasoning.prompt import Prompt, build_prompt
from more_r1.reasoning.trace import TraceError, parse_trace
from more_r1.schema import Relation, Schema

# One label begins another, so that the end of an answer is a choice too.
OWN = Schema(
    relations=(Relation(label="/per/org/member", meaning="-"), Relation(label="/per/org/member_of_board", meaning="-"))
)


def prompts(backbone: Backbone, folder: Path, schema: Schema) -> list[Prompt]:
    documents = load_documents(folder, "test")
    return [build_prompt(d, p, schema, backbone.form) for d in documents for p in d.pairs]


@pytest.mark.parametrize("schema", [Schema.more(), OWN])
def test_random_weights_keep_the_form(random_tiny: Backbone, benchmark_dir: Path, schema: Schema) -> None:
    asked = prompts(random_tiny, benchmark_dir, schema)
    with pytest.raises(TraceError):
        parse_trace(generate(random_tiny, asked[:1], 150)[0], schema)
    for text in generate(random_tiny, asked, 150, keep_form=schema):
        trace = parse_trace(text, schema)
        assert len(trace.steps) == 6 and trace.answer in schema.labels


def test_answers_alone_keep_the_form(random_tiny: Backbone, benchmark_dir: Path) -> None:
    short = replace(random_tiny, form=random_tiny.form.model_copy(update={"reasoning": "none"}))
    for text in generate(short, prompts(short, benchmark_dir, OWN), 64, keep_form=OWN):
        assert parse_trace(text, OWN, "none").answer in OWN.labels


def test_what_is_asked_together_changes_nothing(random_tiny: Backbone, benchmark_dir: Path) -> None:
    asked = prompts(random_tiny, benchmark_dir, OWN)[:4]
    together = generate(random_tiny, asked, 150, keep_form=OWN)
    assert together == [generate(random_tiny, [prompt], 150, keep_form=OWN)[0] for prompt in asked]


def test_a_model_that_keeps_the_form_is_not_touched(benchmark_dir: Path) -> None:
    from more_r1.models.load import load_backbone

    shipped, schema = load_backbone("tiny"), Schema.more()
    asked = prompts(shipped, benchmark_dir, schema)[:12]
    kept, free = generate(shipped, asked, 512, keep_form=schema), generate(shipped, asked, 512)
    whole = [(one, other) for one, other in zip(kept, free, strict=True) if _parses(other, schema)]
    assert len(whole) >= 10
    assert all(one == other for one, other in whole)


def _parses(text: str, schema: Schema) -> bool:
    try:
        parse_trace(text, schema)
    except TraceError:
        return False
    return True
