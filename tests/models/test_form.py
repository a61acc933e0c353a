"""Decoding that cannot break the form: even random weights answer with a trace."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from more_r1.formats import load_documents
from more_r1.models import form as form_module
from more_r1.models.generate import generate
from more_r1.models.load import Backbone, load_backbone
from more_r1.models.sampling import Sampling
from more_r1.models.tiny import build_tiny
from more_r1.reasoning.prompt import Prompt, PromptForm, build_prompt
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


def drawn(backbone: Backbone, asked: list[Prompt], count: int, schema: Schema, **more: Any) -> list[str]:
    """So many completions at temperature 2, each with a seed of its own."""
    repeated = [asked[number % len(asked)] for number in range(count)]
    return generate(backbone, repeated, 128, keep_form=schema, sampling=Sampling(temperature=2), seeds=range(count), **more)


def test_what_is_drawn_keeps_the_form(random_tiny: Backbone, benchmark_dir: Path) -> None:
    """Of random weights at temperature 2, where next to anything is drawn; studies/constrained.py draws 10,000."""
    texts = drawn(random_tiny, prompts(random_tiny, benchmark_dir, OWN)[:4], 120, OWN)
    assert len(set(texts)) == 120
    answers = Counter(parse_trace(text, OWN).answer for text in texts)
    assert answers.keys() == set(OWN.labels) and min(answers.values()) > 5


def test_a_draw_depends_on_its_own_seed_alone(random_tiny: Backbone, benchmark_dir: Path) -> None:
    asked = prompts(random_tiny, benchmark_dir, OWN)[:6]
    together = drawn(random_tiny, asked, 6, OWN)
    how = Sampling(temperature=2)
    alone = generate(random_tiny, asked[4:5], 128, keep_form=OWN, sampling=how, seeds=[4])
    assert alone == together[4:5]


def scripted(
    monkeypatch: pytest.MonkeyPatch,
    backbone: Backbone,
    words: str,
    schema: Schema = OWN,
    types: bool = False,
    limit: int = 256,
) -> str:
    """What comes of a model that wants to write these words over and over."""
    ids = itertools.cycle(backbone.encoder.tokenizer(words, add_special_tokens=False)["input_ids"])

    def favourite(scores: Tensor) -> Tensor:
        """The next of the words, if it may come now."""
        wanted = next(ids)
        if scores[0, wanted] == -torch.inf:
            return scores.argmax(-1)
        return torch.tensor([wanted])

    monkeypatch.setattr(form_module, "draw", lambda scores, top_p, numbers: favourite(scores))
    prompt = Prompt((("Maya",),))
    return generate(backbone, [prompt], limit, keep_form=schema, types=types, sampling=Sampling(), seeds=[1])[0]


@pytest.mark.parametrize("words", ["Step 3:", "oh Step 9: Step 3:", "xStep 1:", "</think> <answer>none", "\u3000", "\u2028 a"])
def test_no_words_can_break_the_form(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """Not even where the marks are spelled letter by letter, or where a space takes several tokens."""
    spelling = build_tiny(["Maya", "3", "9", *OWN.labels], 0, PromptForm(wording="short"))
    assert len(parse_trace(scripted(monkeypatch, spelling, words), OWN).steps) == 6


def test_the_answer_is_one_that_step_4_allows(random_tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights that say the types and answer at random: by force they answer what the types allow."""
    schema = Schema.more()
    fits = []
    for types, said in itertools.product((False, True), (("per", "org"), ("loc", "loc"), ("misc", "per"), ("org", "misc"))):
        words = f" ({said[0]}) , ({said[1]}) ."
        trace = parse_trace(scripted(monkeypatch, random_tiny, words, schema, types, 128), schema)
        assert trace.types in (said, said[::-1])
        fits.append((types, trace.answer in schema.candidates(*trace.types)))
    assert (False, False) in fits and (True, False) not in fits


def test_answers_alone_keep_the_form(random_tiny: Backbone, benchmark_dir: Path) -> None:
    short = replace(random_tiny, form=random_tiny.form.model_copy(update={"reasoning": "none"}))
    for text in generate(short, prompts(short, benchmark_dir, OWN), 64, keep_form=OWN):
        assert parse_trace(text, OWN, "none").answer in OWN.labels


def test_what_is_asked_together_changes_nothing(random_tiny: Backbone, benchmark_dir: Path) -> None:
    asked = prompts(random_tiny, benchmark_dir, OWN)[:4]
    together = generate(random_tiny, asked, 150, keep_form=OWN)
    assert together == [generate(random_tiny, [prompt], 150, keep_form=OWN)[0] for prompt in asked]


def test_a_model_that_keeps_the_form_is_not_touched(benchmark_dir: Path) -> None:
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
