from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageChops

from more_r1.synthetic.drawing import SIZE, draw
from more_r1.synthetic.world import BADGES, BY_KIND, PLAIN, PROPS, SCENES, Thing


def _names(kind: str) -> st.SearchStrategy[str]:
    return st.sampled_from([referent.name for referent in BY_KIND[kind]])


_badges = st.one_of(
    st.none(),
    st.just(("armband", "")),
    *(st.tuples(st.just(badge), _names(kind)) for badge, (kind, _) in BADGES.items()),
)
persons = st.builds(
    Thing,
    st.just("person"),
    _names("person"),
    kit=st.one_of(st.just(""), _names("club")),
    clothes=st.sampled_from(PLAIN),
    badge=_badges,
    blurred=st.booleans(),
)
things = st.one_of(
    persons,
    st.builds(Thing, st.just("club"), _names("club")),
    st.builds(Thing, st.just("brand"), _names("brand"), ring=st.one_of(st.just(""), _names("group"))),
    st.builds(Thing, st.just("city"), _names("city")),
    st.builds(Thing, st.just("prop"), st.sampled_from(PROPS)),
)
pictures = st.lists(things, min_size=1, max_size=8)
seeds = st.integers(0, 2**32)


@given(pictures, st.sampled_from(SCENES), seeds)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_every_box_is_inside_the_picture_and_below_the_scene(shown: list[Thing], scene: str, seed: int) -> None:
    image, boxes = draw(shown, scene, Random(seed))
    assert image.size == (SIZE, SIZE)
    assert len(boxes) == len(shown)
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= SIZE
        assert 97 < top < bottom <= SIZE
        assert 50 <= right - left == bottom - top <= 58


@given(pictures, st.permutations(SCENES), seeds)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_crops_do_not_show_the_scene(shown: list[Thing], scenes: list[str], seed: int) -> None:
    """The same dice, another scene: every crop is the same to the pixel, the whole picture is not."""
    one, boxes = draw(shown, scenes[0], Random(seed))
    other, same = draw(shown, scenes[1], Random(seed))
    assert boxes == same
    assert one.tobytes() != other.tobytes()
    for box in boxes:
        assert ImageChops.difference(one.crop(box), other.crop(box)).getbbox() is None


@given(persons, persons, seeds)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_what_is_described_alike_looks_alike_and_nothing_else(one: Thing, other: Thing, seed: int) -> None:
    if one.blurred or other.blurred:
        return
    crops = [image.crop(box).tobytes() for image, (box,) in (draw([t], "goal", Random(seed)) for t in (one, other))]
    assert (crops[0] == crops[1]) == (one.describe() == other.describe())
