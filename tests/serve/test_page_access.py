"""The page in a real browser: by keyboard alone, by touch, on a phone; with hostile texts, and when things go wrong."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from page_driver import at, box, contrast, drag, extract, texts, try_one, until, upload, word
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import Select

from more_r1.extraction.words import tokenise
from more_r1.formats.jsonl import read_jsonl

# Marks that write from right to left, and Arabic, between tags.
HOSTILE = (
    "<img src=x onerror='pwned=1'> \u202egnp.exe\u202c \u0627\u0644\u0639\u0631\u0628 </p><script>pwned=1</script> &amp; {{x}} "
)
# Text and what is behind it.
PAINTED = [
    ("ink", "paper"), ("soft", "paper"), ("soft", "card"), ("soft", "tint"), ("ink", "tint"), ("warn", "paper"),
    ("accent", "card"), ("accent", "paper"), ("on-accent", "accent"),
]  # fmt: skip


def test_everything_is_done_by_keyboard_alone(
    page: WebDriver, sailors: Path, saved: Callable[[str], Path], tmp_path: Path
) -> None:
    def press(*keys: str) -> None:
        page.switch_to.active_element.send_keys(*keys)

    def tab_to(selector: str, key: str = Keys.TAB) -> None:
        """Goes there; what has the focus on the way is to be seen."""
        for _ in range(40):
            press(*([Keys.SHIFT, Keys.TAB, Keys.NULL] if key == "back" else [key]))
            found, outline = page.execute_script(
                "const held = document.activeElement, seen = held.type === 'radio' ? held.nextElementSibling : held;"
                "return [held.matches(arguments[0]), getComputedStyle(seen).outlineStyle]",
                selector,
            )
            assert outline != "none"
            if found:
                return
        raise AssertionError(f"{selector} cannot be reached")

    tab_to("#choose")
    at(page, "#file").send_keys(str(sailors))  # the dialog of the system is not ours
    until(page, "document.activeElement.id === 'text'")
    press("breaking : Sailors rest Ida against Titans", Keys.TAB, Keys.ENTER)
    until(page, "document.activeElement.matches('.word')")
    press(*[Keys.ARROW_RIGHT] * 2, Keys.SHIFT, Keys.ARROW_RIGHT, Keys.NULL, Keys.ENTER)
    assert texts(page, ".word.marked") == ["Sailors", "rest"]
    press(Keys.DELETE, Keys.ARROW_LEFT, Keys.ENTER)
    assert texts(page, ".word.marked") == ["Sailors"]

    tab_to("#add-box", "back")
    press(Keys.ENTER)
    before = box(page)
    press(*[Keys.ARROW_RIGHT] * 10, *[Keys.ARROW_DOWN] * 12, Keys.SHIFT, Keys.ARROW_LEFT, *[Keys.ARROW_UP] * 2, Keys.NULL)
    assert box(page) == pytest.approx([before[0] + 0.1, before[1] + 0.12, before[2] + 0.09, before[3] + 0.1], abs=0.005)
    press(Keys.ENTER, Keys.ARROW_RIGHT)  # put down: arrows do not move it
    assert box(page)[0] == pytest.approx(before[0] + 0.1, abs=0.005)
    assert "Object 1: 45 % from the left" in page.execute_script("return document.activeElement.ariaLabel")

    tab_to("#extract")
    press(Keys.ENTER)
    until(page, "document.querySelectorAll('.relation').length === 1")
    assert page.switch_to.active_element == at(page, "#extract")
    if not at(page, "#related").text:
        tab_to("#none-fold summary")
        press(Keys.ENTER)
    tab_to(".relation .head")
    press(Keys.ENTER)
    assert len(texts(page, ".steps li")) == 6
    tab_to("select.label")
    press("leader")
    until(page, "document.activeElement.value === '/per/org/leader_of'")
    tab_to(".chip", "back")
    press(Keys.ENTER)
    assert page.execute_script("return document.activeElement.matches('.head[aria-expanded=true]')")
    tab_to("button[value=jsonl]")
    press(Keys.ENTER)
    until(page, "document.getElementById('export-note').textContent !== ''")
    until_saved = time.monotonic() + 10
    while not list(tmp_path.glob("*.jsonl")):
        assert time.monotonic() < until_saved
    assert [pair.label for pair in read_jsonl(tmp_path / "more-r1.jsonl")[0].pairs] == ["/per/org/leader_of"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_is_readable(page: WebDriver, scheme: str, sailors: Path) -> None:
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        widths = [page.execute_script("return document.documentElement.scrollWidth")]
        try_one(page, 1)
        page.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        page.execute_script("document.querySelectorAll('.head').forEach((each) => each.click())")
        widths.append(page.execute_script("return document.documentElement.scrollWidth"))
        upload(page, sailors, "W" * 300)
        widths.append(page.execute_script("return document.documentElement.scrollWidth"))
        assert max(widths) <= 360
        # WCAG's contrast of text: 4.5 to 1.
        assert [pair for pair in PAINTED if contrast(page, *pair) < 4.5] == []
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_finger_draws_a_box_when_asked_and_else_scrolls(page: WebDriver, sailors: Path) -> None:
    def touch(*points: tuple[float, float]) -> None:
        x, y, width, height = page.execute_script(
            "const r = picture.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]"
        )
        for index, (left, top) in enumerate(points):
            at_point = [{"x": x + left * width, "y": y + top * height}]
            page.execute_cdp_cmd(
                "Input.dispatchTouchEvent", {"type": "touchMove" if index else "touchStart", "touchPoints": at_point}
            )
        page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        upload(page, sailors, "Sailors rest")
        stroke = [(0.2, 0.3), (0.3, 0.4), (0.5, 0.6), (0.6, 0.7)]
        touch(*stroke)
        assert texts(page, ".box") == []
        at(page, "#add-box").click()
        touch(*stroke)
        assert box(page) == pytest.approx([0.2, 0.3, 0.6, 0.7], abs=0.01)
        touch((0.4, 0.5), (0.5, 0.45), (0.6, 0.4))
        assert box(page) == pytest.approx([0.4, 0.2, 0.8, 0.6], abs=0.01)
    finally:
        page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_text_of_strangers_stays_text(page: WebDriver, sailors: Path) -> None:
    def give(text: str) -> list[str]:
        page.execute_script("arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))", area, text)
        at(page, "#use-text").click()
        until(page, "!document.getElementById('words').hidden")
        shown = page.execute_script("return [...document.querySelectorAll('.word')].map((word) => word.textContent)")
        assert isinstance(shown, list)
        return shown

    at(page, "#file").send_keys(str(sailors))
    until(page, "document.activeElement.id === 'text'")
    area, text = at(page, "#text"), (HOSTILE * 200)[:10_000]
    assert give(text) == list(tokenise(text))
    # Documents made elsewhere have tokens of their own.
    page.execute_script(
        "const real = fetch; window.fetch = (path, request) => path === '/tokens'"
        " ? Promise.resolve(new Response(JSON.stringify({ tokens: [arguments[0], 'wins'] }))) : real(path, request)",
        HOSTILE,
    )
    at(page, "#edit-text").click()
    assert give("x") == [HOSTILE, "wins"]
    drag(page, (0.2, 0.2), (0.6, 0.6))
    at(page, ".word").click()
    assert at(page, "#selected").get_attribute("textContent") == HOSTILE
    extract(page)
    page.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    at(page, ".relation .head").click()
    assert HOSTILE in str(at(page, ".relation .pair").get_attribute("textContent"))
    select = Select(at(page, "select.label"))
    select.select_by_value("/per/org/member_of")
    assert at(page, "#graph .named title").get_attribute("textContent") == HOSTILE
    assert page.execute_script("return [...document.images].every((image) => image.src.startsWith('data:'))")
    assert page.execute_script("return window.pwned === undefined && document.scripts.length === 1")


def test_what_goes_wrong_is_said_in_place_and_in_words(page: WebDriver, sailors: Path, tmp_path: Path) -> None:
    for name, content, said in (
        ("a.svg", b"<svg/>", "no picture that can be read"),
        ("b.png", b"\x89PNG broken", "the file is broken"),
    ):
        (tmp_path / name).write_bytes(content)
        at(page, "#file").send_keys(str(tmp_path / name))
        until(page, f"problem.textContent.includes({json.dumps(said)})")
        assert name in at(page, "#problem").text
    at(page, "#file").send_keys(str(sailors))
    until(page, "document.activeElement.id === 'text'")
    page.execute_script(
        "arguments[0].value = 'a '.repeat(6000); arguments[0].dispatchEvent(new Event('input'))", at(page, "#text")
    )
    at(page, "#use-text").click()
    until(page, "document.getElementById('own-problem').textContent.includes('10000 characters')")
    at(page, "#text").clear()
    at(page, "#text").send_keys("nobody is named")
    at(page, "#extract").click()
    until(page, "document.getElementById('own-problem').textContent.includes('mark at least one')")

    # A full queue is waited for; a server that is gone leaves what was done.
    page.execute_script(
        "window.asked = 0; window.real = window.fetch; window.fetch = (...request) => (asked += 1) > 1 ? real(...request) :"
        " Promise.resolve(new Response('{\"error\": \"full\"}', { status: 429, headers: { 'Retry-After': '1' } }))"
    )
    word(page, "nobody").click()
    drag(page, (0.1, 0.1), (0.4, 0.4))
    at(page, "#extract").click()
    until(page, "document.getElementById('status').textContent.includes('busy')")
    until(page, "document.querySelectorAll('.relation').length === 1")
    page.execute_script("window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    at(page, "#extract").click()
    until(page, "document.getElementById('own-problem').textContent.includes('does not answer')")
    assert len(page.find_elements(By.CSS_SELECTOR, ".relation")) == 1
