"""The queue and its thread: what is asked together changes nothing, and nobody pays for another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future

import pytest

from more_r1.document import Document
from more_r1.extraction.extract import extract
from more_r1.models.load import Backbone
from more_r1.models.predict import Reading
from more_r1.reasoning.prediction import Prediction
from more_r1.schema import Schema
from more_r1.serve.desk import MAX_JOINT, Desk, Read
from more_r1.serve.errors import RequestError
from more_r1.serve.requests import MAX_PAIRS

PLAIN = Reading(confidence=True)
SAMPLED = Reading(confidence=True, samples=1)
SECONDS = 120


class Gate:
    """Lets nothing be prepared until it is opened, and knows what was."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.prepared: list[str] = []

    def __call__(self, document: Document) -> Document:
        self.reached.set()
        assert self.open.wait(SECONDS)
        self.prepared.append(document.id)
        return document


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def busy(shipped: Backbone, gate: Gate, document: Document, room: int = 64) -> tuple[Desk, Future[Read]]:
    """A desk whose thread is held at the gate by a first document."""
    desk = Desk(shipped, Schema.more(), gate, room)
    first = desk.submit(document, None)
    assert gate.reached.wait(SECONDS)
    return desk, first


def short(documents: list[Document]) -> list[Document]:
    """With one pair each."""
    return [document.model_copy(update={"pairs": document.pairs[:1]}) for document in documents]


def told(predictions: tuple[Prediction, ...]) -> list[tuple[object, ...]]:
    return [(p.document, p.object, p.span, p.predicted, p.completion, p.agreement) for p in predictions]


def test_answers_are_the_same_whatever_is_asked_together(shipped: Backbone, gate: Gate, documents: list[Document]) -> None:
    given = [document.model_copy(update={"id": "same"}) for document in short(documents)[:4]]
    broken = given[1].model_copy(update={"image": b"no picture"})
    asked = [(given[0], PLAIN), (given[1], SAMPLED), (broken, PLAIN), (given[2], PLAIN), (given[3], PLAIN)]
    desk, _ = busy(shipped, gate, given[0])
    answers = [desk.submit(document, reading) for document, reading in asked]
    assert desk.waiting == len(asked)
    gate.open.set()
    for answer, (document, reading) in zip(answers, asked, strict=True):
        if document is broken:
            error = answer.exception(SECONDS)
            assert isinstance(error, RequestError)
            assert error.status == 422
            continue
        found = answer.result(SECONDS)
        alone = tuple(extract(shipped, [document], confidence=True, samples=reading.samples))
        assert found.document == document
        assert told(found.predictions) == told(alone)
        for one, other in zip(found.predictions, alone, strict=True):
            assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
    desk.close()
    desk.join()


def test_what_is_read_in_one_way_is_asked_in_one_batch(
    shipped: Backbone, gate: Gate, documents: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def watched(backbone: Backbone, documents: list[Document], schema: Schema, **how: object) -> Iterator[Prediction]:
        asked.append([document.id for document in documents])
        return iter(())

    monkeypatch.setattr("more_r1.serve.desk.extract", watched)
    one = short(documents)[0].model_copy(update={"pairs": short(documents)[0].pairs * 100})
    count = len(one.pairs)
    desk, _ = busy(shipped, gate, one)
    for id, reading in (("a", PLAIN), ("b", SAMPLED), ("c", PLAIN), ("d", PLAIN), ("e", PLAIN)):
        desk.submit(one.model_copy(update={"id": id}), reading)
    gate.open.set()
    desk.close()
    desk.join()
    # The first in comes first; a batch ends with the pair that fills it.
    together = -(-192 // count)
    plain = ["a", "c", "d", "e"]
    assert asked == [plain[:together], ["b"], plain[together:]]


def test_a_full_queue_takes_no_more(shipped: Backbone, gate: Gate, documents: list[Document]) -> None:
    document = documents[0]
    desk, first = busy(shipped, gate, document, room=2)
    waiting = [desk.submit(document, None) for _ in range(2)]
    with pytest.raises(RequestError) as refusal:
        desk.submit(document, None)
    assert (refusal.value.status, refusal.value.retry_after) == (429, 1)
    assert waiting[0].cancel()
    waiting.append(desk.submit(document, None))  # in the place of the one that went away
    with pytest.raises(RequestError):
        desk.submit(document, None)
    gate.open.set()
    assert all(isinstance(answer.result(SECONDS), Read) for answer in (first, *waiting[1:]))
    assert isinstance(desk.submit(document, None).result(SECONDS), Read)


def test_who_went_away_is_not_worked_for(shipped: Backbone, gate: Gate, documents: list[Document]) -> None:
    a, b, c = (documents[0].model_copy(update={"id": id}) for id in "abc")
    desk, first = busy(shipped, gate, a)
    gone, stays = desk.submit(b, None), desk.submit(c, None)
    assert gone.cancel()
    assert not first.cancel()  # begun
    gate.open.set()
    stays.result(SECONDS)
    assert gate.prepared == ["a", "c"]
    with pytest.raises(CancelledError):
        gone.result(SECONDS)


def test_closing_answers_what_waits(shipped: Backbone, gate: Gate, documents: list[Document]) -> None:
    desk, first = busy(shipped, gate, documents[0])
    waiting = [desk.submit(document, None) for document in documents]
    desk.close()
    with pytest.raises(RequestError) as refusal:
        desk.submit(documents[0], None)
    assert refusal.value.status == 503
    gate.open.set()
    desk.join()
    assert all(answer.done() and answer.exception() is None for answer in (first, *waiting))


def test_what_is_too_much_is_refused(shipped: Backbone, gate: Gate, documents: list[Document]) -> None:
    gate.open.set()
    desk = Desk(shipped, Schema.more(), gate, 8)
    many = documents[0].model_copy(update={"pairs": documents[0].pairs[:1] * (MAX_JOINT + 1)})
    joint = desk.submit(many, Reading(joint=True)).exception(SECONDS)
    sampled = desk.submit(many, Reading(samples=MAX_PAIRS // MAX_JOINT)).exception(SECONDS)
    nothing = desk.submit(documents[0].model_copy(update={"pairs": (), "objects": ()}), PLAIN).exception(SECONDS)
    for error, said in ((joint, "together"), (sampled, "times"), (nothing, "no object given or found")):
        assert isinstance(error, RequestError)
        assert (error.status, said in str(error)) == (422, True)


def test_a_bug_is_no_clients_business(shipped: Backbone, documents: list[Document]) -> None:
    def fails(document: Document) -> Document:
        raise RuntimeError("a secret")

    desk = Desk(shipped, Schema.more(), fails, 8)
    for _ in range(2):  # and the thread lives on
        error = desk.submit(documents[0], PLAIN).exception(SECONDS)
        assert isinstance(error, RequestError)
        assert error.status == 500
        assert "secret" not in str(error)
