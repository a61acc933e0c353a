"""Proposers: what they find, in the embedded world and on a photograph, and that they take no harm from what they are given."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from more_r1.document import Box, Document
from more_r1.extraction.proposers import ProposerError, entity_proposer, lvlm, object_proposer, propose
from more_r1.extraction.proposers.boxes import MOST, objects_of, shared
from more_r1.extraction.words import tokenise
from more_r1.models.load import Backbone
from more_r1.synthetic.compose import ImpossibleError, aside, tell
from more_r1.synthetic.drawing import SIZE, draw
from more_r1.synthetic.world import BY_KIND, PROPS, SCENES, Thing

HEADLINE = "Eileen Collins, first woman to command a Space Shuttle, poses at NASA's Johnson Space Center in Houston on Monday"


def document(image: Image.Image, text: str, format: str = "PNG", **options: int) -> Document:
    file = io.BytesIO()
    image.save(file, format, **options)
    return Document(id="it", image=file.getvalue(), tokens=tokenise(text))


def things(random: Random) -> list[Thing]:
    kinds = ["person", "club", "brand", "city", "prop"]

    def thing() -> Thing:
        kind = random.choice(kinds)
        who = random.choice(PROPS) if kind == "prop" else random.choice(BY_KIND[kind]).name
        kit = random.choice(BY_KIND["club"]).name if kind == "person" and random.random() < 0.5 else ""
        return Thing(kind, who, kit=kit, blurred=random.random() < 0.1)

    return [thing() for _ in range(random.randint(1, 8))]


def blank() -> Document:
    return document(Image.new("RGB", (64, 64), "white"), "Maya wins")


@pytest.mark.parametrize("format", [{"format": "PNG"}, {"format": "JPEG", "quality": 85}])
def test_things_of_the_embedded_world_are_found(random_tiny: Backbone, format: dict[str, int]) -> None:
    random = Random(5)
    find = object_proposer("embedded", random_tiny)
    drawn = found = right = 0
    for _ in range(60):
        image, corners = draw(things(random), random.choice(SCENES), random)
        boxes = [Box.from_pixels(*each, width=SIZE, height=SIZE) for each in corners]
        objects = find(document(image, "Maya", **format))
        drawn, found = drawn + len(boxes), found + len(objects)
        right += sum(any(shared(box, object.box) >= 0.5 for object in objects) for box in boxes)
        assert all(object.box.fault() is None for object in objects)
    assert right / drawn >= 0.98
    assert found <= 1.02 * drawn


def test_names_of_the_embedded_world_are_found(random_tiny: Backbone) -> None:
    random = Random(0)
    find = entity_proposer("gazetteer", random_tiny)
    named = 0
    for _ in range(300):
        try:
            story = tell([aside(random), aside(random)], random)
        except ImpossibleError:
            continue
        entities = find(Document(id="it", image=b"", tokens=story.tokens))
        assert [(e.span.start, e.span.end) for e in entities] == [(m.start, m.end) for m in story.mentions]
        named += len(entities)
    assert named > 500


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.tsv", "New York\tloc\nNew York Times\torg\nMaya\n\n"),
        ("names.yaml", "New York: loc\nNew York Times: org\n'Maya':\n"),
    ],
)
def test_a_gazetteer_of_ones_own(tmp_path: Path, random_tiny: Backbone, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    find = entity_proposer(f"gazetteer:{tmp_path / name}", random_tiny)
    read = Document(id="it", image=b"", tokens=tokenise("New York Times: Maya leaves New York, maya stays in York"))
    assert [(read.name(e), e.type) for e in find(read)] == [("New York Times", "org"), ("Maya", None), ("New York", "loc")]


@pytest.mark.parametrize(
    ("choice", "content", "words"),
    [
        ("gazeteer", None, "did you mean gazetteer"),
        ("gazetteer:{}/no.tsv", None, "no.tsv"),
        ("gazetteer:{}/it.tsv", "a\tb\tc", "3 columns"),
        ("gazetteer:{}/it.tsv", "Maya\tperson", "unknown type 'person'"),
        ("gazetteer:{}/it.yaml", "- Maya", "no names"),
        ("gazetteer:{}/it.yaml", "no: loc", "no name"),
        ("gazetteer:{}/it.yaml", "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]", "unknown type"),
        ("gazetteer:{}/it.yaml", "a: [", "cannot be read"),
        ("gazetteer:{}/it.txt", "Maya", "give a .tsv or a .yaml"),
        ("spacy:en_no_such_model", None, "en_no_such_model"),
        ("lvlm:x", None, "no argument"),
    ],
)
def test_an_entity_proposer_that_is_none(
    tmp_path: Path, random_tiny: Backbone, choice: str, content: str | None, words: str
) -> None:
    choice = choice.format(tmp_path)
    if content is not None:
        Path(choice.partition(":")[2]).write_text(content)
    with pytest.raises(ProposerError, match=words) as error:
        entity_proposer(choice, random_tiny)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("face", "did you mean faces"),
        ("detector", "name a model"),
        ("detector:/no/folder", "cannot be loaded"),
        ("embedded:x", "no argument"),
    ],
)
def test_an_object_proposer_that_is_none(random_tiny: Backbone, choice: str, words: str) -> None:
    with pytest.raises(ProposerError, match=words):
        object_proposer(choice, random_tiny)


def test_the_astronaut_is_seen_and_named(random_tiny: Backbone) -> None:
    from skimage import data

    photo = document(Image.fromarray(data.astronaut()), HEADLINE)
    found = propose(photo, entities=entity_proposer("spacy", random_tiny), objects=object_proposer("faces", random_tiny))
    names = {found.name(entity): entity.type for entity in found.entities}
    assert names["Eileen Collins"] == "per" and names["NASA"] == "org" and names["Houston"] == "loc"
    assert "Monday" not in names
    assert [object.type for object in found.objects] == ["per"]
    # Her face is at about (0.43, 0.22) of the picture.
    left, top, right, bottom = found.objects[0].box.corners
    assert left < 0.43 < right and top < 0.22 < bottom and found.objects[0].box.w < 0.6
    assert propose(found, entities=pytest.fail, objects=pytest.fail) == found  # what is there stays


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3), (64, 64)])
@pytest.mark.parametrize("choice", ["faces", "embedded"])
def test_odd_pictures_do_no_harm(random_tiny: Backbone, choice: str, size: tuple[int, int]) -> None:
    assert object_proposer(choice, random_tiny)(document(Image.new("RGB", size, "grey"), "Maya")) == ()


def test_boxes_of_an_answer_are_in_pixels_of_the_picture_that_the_model_saw(
    random_tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def answer(_: Backbone, prompts: list[lvlm.Prompt], __: int) -> list[str]:
        asked.append(prompts[0])
        return ['Here:\n```json\n[{"bbox_2d": [28, 14, 84, 56], "label": "per"}, {"bbox_2d": [0, 0, 50, ']

    monkeypatch.setattr(lvlm, "generate", answer)
    photo = document(Image.new("RGB", (400, 400)), "Maya").model_copy(update={"tokens": ("Maya", "<|image_pad|>")})
    (found,) = object_proposer("lvlm", random_tiny)(photo)
    assert asked[0].pictures[0].pixels == 112 * 112  # so large is the picture to this model
    assert found.box == Box.from_pixels(28, 14, 84, 56, width=112, height=112)
    assert found.type == "per"
    entity_proposer("lvlm", random_tiny)(photo)
    random_tiny.encoder.prompt(asked[1])  # a text cannot smuggle a picture in


def test_a_model_that_knows_nothing_of_json_finds_nothing(random_tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lvlm, "MAX_NEW_TOKENS", 24)
    found = propose(blank(), entities=entity_proposer("lvlm", random_tiny), objects=object_proposer("lvlm", random_tiny))
    assert (found.entities, found.objects) == ((), ())


def test_names_of_an_answer_are_those_of_the_text() -> None:
    tokens = tokenise("Maya Lind meets Maya in New York")
    items = [("Maya", "per"), ("Maya Lind", "per"), ("new york", "loc"), ("New York", "city"), ("Leo", "per"), ("", "per")]
    answer = json.dumps([{"name": name, "type": type} for name, type in items])
    found = lvlm.read_names(answer, tokens)
    assert [(e.span.start, e.span.end, e.type) for e in found] == [(0, 2, "per"), (3, 4, "per"), (5, 7, None)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=4)
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(JSON, JSON), max_size=4), st.text(max_size=20), st.integers(0, 400))
def test_any_answer_is_read(items: list[tuple[object, object]], around: str, cut: int) -> None:
    answer = (around + json.dumps([{"bbox_2d": box, "label": label, "name": label} for box, label in items]) + around)[:cut]
    for object in lvlm.read_boxes(answer, 280, 140):
        assert object.box.fault() is None
    lvlm.read_names(answer, ("Maya", "wins"))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), *[st.floats(-2, 3)] * 4), max_size=15))
def test_objects_are_sound_few_and_each_there_once(given: list[tuple[float, ...]]) -> None:
    found = objects_of((score, Box.from_corners(*sorted((a, c)), *sorted((b, d))), None) for score, a, b, c, d in given)
    assert len(found) <= MOST and len({object.id for object in found}) == len(found)
    assert all(object.box.fault() is None for object in found)
    assert all(shared(a.box, b.box) <= 0.7 for i, a in enumerate(found) for b in found[:i])


def test_a_detector_of_transformers(tmp_path: Path, random_tiny: Backbone) -> None:
    from detectors import tiny_owl

    tiny_owl(tmp_path / "owl")
    photo = document(Image.new("RGB", (120, 80), "red"), "Maya")
    found = object_proposer(f"detector:{tmp_path / 'owl'}", random_tiny)(photo)
    assert 0 < len(found) <= MOST and all(object.box.fault() is None for object in found)


def test_the_extra_is_named_where_it_is_missing(random_tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("spacy", "cv2"):
        monkeypatch.setitem(sys.modules, module, None)
    for make, name in ((entity_proposer, "spacy"), (object_proposer, "faces")):
        with pytest.raises(ProposerError, match="pip install 'more-r1\\[propose\\]'"):
            make(name, random_tiny)
