from __future__ import annotations

import re
from random import Random
from typing import Any

import pytest

from more_r1.models.tiny import build_tokenizer
from more_r1.reasoning.prompt import Picture, PromptForm, build_prompt
from more_r1.schema import NONE, Schema
from more_r1.synthetic.benchmark import drafts_of, realise
from more_r1.synthetic.lessons import Lesson, lessons, vocabulary

STAGES = ("captions", "reading", "matching", "finding", "telling")
# A text as the tiny tokenizer's words are: tags, parts of labels, words, single marks.
PIECE = re.compile(r"</?[a-z]+>|/[a-z_]+|[A-Za-z0-9_]+|[^\sA-Za-z0-9_]|\n")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer(vocabulary())


def _drawn(seed: int, count: int) -> list[Lesson]:
    return [lesson for stage in STAGES for index in range(count) for lesson in lessons(seed, index, stage)]


def _texts(lesson: Lesson) -> list[str]:
    prompt, answer = lesson
    return [part for segment in prompt.segments for part in segment if isinstance(part, str)] + [answer]


def test_a_lesson_never_says_a_label() -> None:
    """The instruction of the task may list them; headline, question and answer name none."""
    labels = [label for label in Schema.more().labels if label != NONE]
    for prompt, answer in _drawn(3, 12):
        own = [part for segment in prompt.segments[1:] for part in segment if isinstance(part, str)]
        for text in [*own, answer]:
            assert not any(label in text for label in labels)
            assert "<answer>" not in text


def test_lessons_are_the_same_for_the_same_number() -> None:
    assert lessons(1, 70, "matching") == lessons(1, 70, "matching")
    assert lessons(1, 70, "matching") != lessons(2, 70, "matching")
    assert lessons(1, 70, "matching") != lessons(1, 71, "matching")


def test_lessons_of_a_document_share_its_picture_and_headline() -> None:
    for stage in STAGES:
        found = lessons(0, 5, stage)
        assert len({prompt.segments[1] for prompt, _ in found}) == 1
    wholes = {part for prompt, _ in found for part in prompt.pictures if part.box is None}
    assert len(wholes) == 1


def test_captions_see_and_reading_reads() -> None:
    def crops(stage: str) -> int:
        return sum(isinstance(part, Picture) and part.box is not None for p, _ in lessons(0, 9, stage) for part in p.pictures)

    assert crops("reading") == 0
    assert crops("captions") == crops("matching") - sum(
        "What is seen ?" in text for lesson in lessons(0, 9, "matching") for text in _texts(lesson)
    )
    questions = {
        text for stage in STAGES for i in range(10) for lesson in lessons(0, i, stage) for text in _texts(lesson)[2:-1]
    }
    assert any(re.fullmatch(r"Question: Is \w+ named \?", question) for question in questions)


def test_finding_says_of_each_name_whether_the_headline_has_it() -> None:
    kinds = set()
    for index in range(40):
        for lesson in lessons(0, index, "finding"):
            assert not lesson[0].pictures
            headline, answer = _texts(lesson)[1].split()[1:], lesson[1]
            found = answer.split(" . ", 1)[1].removesuffix(" .").split(" and ")
            assert 4 < len(found) <= 8
            for said in found:
                name, standing = said.split(" , ")[:2]
                kinds.add(said.split(" , ", 1)[1].split()[0] + (" itself" if said.endswith("the entity itself") else ""))
                if standing == "not named":
                    assert f" {name} " not in f" {' '.join(headline)} "
                else:
                    words = standing.removeprefix("named as ")
                    assert f" {words} " in f" {' '.join(headline)} "
                    assert said.endswith("itself") == (f"Entity: {words}\n" in _texts(lesson)[2])
    assert kinds == {"not", "named", "named itself"}


def test_the_vocabulary_has_every_word(tokenizer: Any, tmp_path: Any) -> None:
    """Prompts, traces and lessons alike: each word is one token, none falls to bytes."""
    schema, texts = Schema.more(), [text for lesson in _drawn(4, 12) for text in _texts(lesson)]
    for number, draft in enumerate(drafts_of("test_new", 1000, 9)):
        document, facts = realise(draft, f"{number}.png", tmp_path, Random(number))
        texts += [fact.completion or "" for fact in facts]
        for reasoning in ("steps", "none"):
            form = PromptForm(wording="short", reasoning=reasoning)
            prompts = [build_prompt(document, pair, schema, form) for pair in document.pairs]
            texts += [part for prompt in prompts for segment in prompt.segments for part in segment if isinstance(part, str)]
    unknown = {piece for text in texts for piece in PIECE.findall(text)} - set(vocabulary()) - {"\n"}
    assert not unknown
    distinct = sorted(set(texts))
    for text, ids in zip(distinct, tokenizer(distinct)["input_ids"], strict=True):
        assert len(ids) == len(PIECE.findall(text)), text
