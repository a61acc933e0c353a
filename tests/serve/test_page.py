"""The page in a real browser: pictures, boxes, words, relations, corrections and files, by mouse."""

import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import rdflib
from page_driver import at, box, drag, extract, texts, try_one, until, upload, word
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import Select

from more_r1.document import Document
from more_r1.formats.jsonl import read_jsonl
from more_r1.formats.more import read_more

LABEL = "/per/org/opposed_to"


def test_from_a_picture_to_corrected_files(
    page: WebDriver, sailors: Path, examples: list[Document], saved: Callable[[str], Path], tmp_path: Path
) -> None:
    upload(page, sailors, "breaking : Sailors rest Ida against Titans")
    one, two = examples[1].objects[2].box.corners, examples[1].objects[1].box.corners
    for left, top, right, bottom in (one, two):
        drag(page, (left, top), (right, bottom))
    assert box(page, 0) == pytest.approx(one, abs=0.01) and box(page, 1) == pytest.approx(two, abs=0.01)
    word(page, "Sailors").click()
    word(page, "Titans").click()
    extract(page)
    assert (
        texts(page, ".chip .name") == ["member of", "alternate names", "opposed to"]
        and at(page, "#none-fold").text == "1 pair without a relation"
    )

    head = at(page, "#related .head")
    assert head.text.splitlines()[:2] == ["Object 1 → Sailors", "member of"] and head.text.endswith("%")
    head.click()
    assert len(texts(page, ".steps li")) == 6 and "member of Sailors" in texts(page, ".steps li")[-1]
    select = Select(at(page, ".relation select"))
    assert "Fit a person and an organisation" in [
        group.get_attribute("label") for group in page.find_elements(By.TAG_NAME, "optgroup")
    ]
    select.select_by_value(LABEL)
    assert at(page, "#related .mark").text == "corrected" and texts(page, ".chip .name")[0] == "opposed to"

    document = read_jsonl(saved("jsonl"))[0]
    assert document.id == "Sailors_co.png" and document.text == "breaking : Sailors rest Ida against Titans"
    assert [each.box.corners for each in document.objects] == [pytest.approx(corners, abs=0.01) for corners in (one, two)]
    labels = {(pair.object, document.name(document.entity(pair.entity))): pair.label for pair in document.pairs}
    assert labels == {
        ("object_1", "Sailors"): LABEL, ("object_2", "Sailors"): "/org/org/alternate_names",
        ("object_1", "Titans"): LABEL, ("object_2", "Titans"): "none",
    }  # fmt: skip
    assert document.image == sailors.read_bytes()
    zipfile.ZipFile(saved("more")).extractall(tmp_path / "more")
    read = read_more(tmp_path / "more", "train")
    assert read[0].tokens == document.tokens
    assert [pair.label for pair in read[0].pairs] == [pair.label for pair in document.pairs]
    graph = rdflib.Graph().parse(saved("ttl"))
    relations = [rdflib.URIRef(f"urn:more-r1:relation:{name}") for name in ("opposed_to", "alternate_names", "member_of")]
    assert [len(list(graph.triples((None, relation, None)))) for relation in relations] == [2, 1, 0]


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(page: WebDriver, way: str) -> None:
    page.execute_script(
        """
        const files = [...document.querySelectorAll("#examples img")].map(({ src }, number) => new File(
          [Uint8Array.from(atob(src.split(",")[1]), (char) => char.charCodeAt(0))], `${number}.png`, { type: "image/png" }));
        const held = new DataTransfer();
        for (const file of files.slice(0, 2)) held.items.add(file);
        const kind = { bubbles: true, cancelable: true, dataTransfer: held, clipboardData: held };
        document.body.dispatchEvent(arguments[0] === "drop" ? new DragEvent("drop", kind) : new ClipboardEvent("paste", kind));
        """,
        way,
    )
    until(page, "document.querySelectorAll('#document-list button').length === 2 && document.activeElement.id === 'text'")
    assert texts(page, "#document-list .title") == ["0.png", "1.png"]
    assert page.execute_script("return [picture.complete, picture.naturalWidth]") == [True, 224]


def test_one_click_on_an_example_draws_lines_from_boxes_to_words(page: WebDriver) -> None:
    try_one(page, 2)
    related = page.execute_script(
        "return [...document.querySelectorAll('.chip')].map((chip) => [chip.ariaLabel, chip.dataset.key])"
    )
    assert len(related) == len(texts(page, "#related .relation")) == len(page.find_elements(By.CSS_SELECTOR, "#graph .edge"))
    hidden = len(page.find_elements(By.CSS_SELECTOR, "#none .relation"))
    assert not at(page, "#none").is_displayed() and at(page, "#none-fold").text == f"{hidden} pairs without a relation"
    for label, key in related:
        start, end, boxed, named = page.execute_script(
            """
            const [object, entity] = JSON.parse(arguments[0]), origin = stage.getBoundingClientRect();
            const group = [...lines.children].find((line) => line.dataset.key === arguments[0]);
            const [, above, below] = group.querySelectorAll("path");
            const point = (path, at) => { const { x, y } = path.getPointAtLength(at); return [x, y]; };
            const corners = (element) => {
              const { left, top, right, bottom } = element.getBoundingClientRect();
              return [left - origin.left, top - origin.top, right - origin.left, bottom - origin.top];
            };
            return [point(above, 0), point(below, below.getTotalLength()),
              corners([...boxes.children].find((box) => box.dataset.id === object)),
              corners(document.querySelectorAll(".word")[entity.split("-")[0]])];
            """,
            key,
        )
        assert boxed[0] < start[0] < boxed[2] and start[1] == pytest.approx(boxed[3], abs=1), label
        assert named[0] < end[0] < named[2] and end[1] == pytest.approx(named[1], abs=1), label
    page.find_elements(By.CSS_SELECTOR, ".chip")[-1].click()
    assert len(texts(page, ".steps li")) == 6 and page.switch_to.active_element.get_attribute("aria-expanded") == "true"


def test_boxes_are_moved_resized_and_deleted(page: WebDriver) -> None:
    try_one(page, 1)
    before = box(page, 2)
    middle = ((before[0] + before[2]) / 2, (before[1] + before[3]) / 2)
    drag(page, middle, (middle[0] - 0.1, middle[1] - 0.2))
    moved = box(page, 2)
    assert moved == pytest.approx([before[0] - 0.1, before[1] - 0.2, before[2] - 0.1, before[3] - 0.2], abs=0.01)
    assert "changed since" in at(page, "#related").text and page.find_elements(By.CSS_SELECTOR, ".line.stale")
    drag(page, (moved[2], moved[3]), (2, moved[3] + 0.05))
    assert box(page, 2) == pytest.approx([moved[0], moved[1], 1, moved[3] + 0.05], abs=0.01)
    drag(page, ((moved[0] + 1) / 2, moved[1] + 0.1), (0.2, 0.9))  # no box leaves the picture
    left, top, right, bottom = box(page, 2)
    assert (left, bottom) == pytest.approx((0, 1), abs=0.005)
    assert (right, bottom - top) == pytest.approx((1 - moved[0], moved[3] + 0.05 - moved[1]), abs=0.01)
    page.switch_to.active_element.send_keys(Keys.DELETE)
    assert len(page.find_elements(By.CSS_SELECTOR, ".box")) == 3
    assert not any("Object 4" in text for text in texts(page, "#related .pair"))


def test_what_is_not_sure_enough_is_withheld_until_a_person_says(page: WebDriver) -> None:
    page.execute_script("document.querySelector('[name=min_confidence]').value = '0.9'")
    page.find_elements(By.CSS_SELECTOR, "#examples button")[1].click()
    until(page, "document.querySelectorAll('.relation').length === 8")
    assert len(texts(page, "#withheld .relation")) == 3 and texts(page, "#related .relation") == texts(page, ".chip") == []
    at(page, "#withheld .head").send_keys(Keys.ENTER)
    Select(at(page, "select.label")).select_by_value(LABEL)
    assert texts(page, "#related .name") == ["opposed to corrected"] and len(texts(page, "#withheld .relation")) == 2
    assert page.switch_to.active_element == at(page, "#related select.label") and texts(page, ".chip .name") == ["opposed to"]


def test_words_are_marked_by_dragging_and_with_shift(page: WebDriver, sailors: Path) -> None:
    def marked() -> list[str]:
        return texts(page, ".word.marked")

    upload(page, sailors, "Ann Lee joins the Vale Rovers Club, says Bo")
    chain = ActionChains(page, duration=10)
    chain.move_to_element(word(page, "Lee")).click_and_hold().move_to_element(word(page, "Ann")).release().perform()
    assert marked() == ["Ann", "Lee"]
    chain = ActionChains(page, duration=10)
    chain.click(word(page, "Vale")).key_down(Keys.SHIFT).click(word(page, "Club")).key_up(Keys.SHIFT).perform()
    assert marked() == ["Ann", "Lee", "Vale", "Rovers", "Club"]
    word(page, "Ann").click()
    assert at(page, "#selected").text == "Ann Lee"
    at(page, "#unselect").click()
    assert marked() == ["Vale", "Rovers", "Club"]
    # Marks stay where the text stays the same.
    at(page, "#edit-text").click()
    at(page, "#text").send_keys(Keys.CONTROL, Keys.HOME)
    at(page, "#text").send_keys("Today ")
    at(page, "#use-text").click()
    until(page, "document.querySelectorAll('.word').length === 11")
    assert marked() == ["Vale", "Rovers", "Club"]


def test_edits_are_undone_and_done_again(page: WebDriver, sailors: Path, examples: list[Document]) -> None:
    def undo(*held: str) -> None:
        chain = ActionChains(page)
        for key in (Keys.CONTROL, *held):
            chain.key_down(key)
        chain.send_keys("z")
        for key in (Keys.CONTROL, *held):
            chain.key_up(key)
        chain.perform()

    def state() -> list[object]:
        boxes = [box(page, number) for number in range(len(page.find_elements(By.CSS_SELECTOR, ".box")))]
        return [boxes, texts(page, ".word.marked"), texts(page, ".relation .what"), texts(page, ".chip"), texts(page, ".word")]

    def enabled() -> list[bool]:
        return [at(page, f"#{name}").is_enabled() for name in ("undo", "redo")]

    upload(page, sailors, "Sailors rest Ida against Titans")
    states = [state()]

    def extracted() -> None:
        extract(page)
        at(page, "#related .head").click()

    def edited() -> None:
        at(page, "#edit-text").click()
        at(page, "#text").send_keys(" today")
        at(page, "#use-text").click()
        until(page, "document.querySelectorAll('.word').length === 6")

    left, top, right, bottom = examples[1].objects[2].box.corners
    for edit in (
        lambda: drag(page, (left, top), (right, bottom)),
        lambda: word(page, "Sailors").click(),
        extracted,
        lambda: Select(at(page, "select.label")).select_by_value(LABEL),
        lambda: drag(page, ((left + right) / 2, (top + bottom) / 2), (0.3, 0.3)),
        edited,
        lambda: at(page, ".box").send_keys(Keys.ENTER, Keys.ARROW_LEFT),
        lambda: word(page, "Titans").click(),
        lambda: at(page, ".box").send_keys(Keys.DELETE),
    ):
        edit()
        states.append(state())
    assert all(one != before for one, before in pairwise(states))
    assert "opposed to corrected" in str(states[4]) and "changed since" in str(states[5])
    for one in reversed(states[:-1]):
        undo()
        assert state() == one
    assert at(page, "#status").text == "Undone." and enabled() == [True, True]
    for one in states[1:]:
        undo(Keys.SHIFT)
        assert state() == one
    assert at(page, "#status").text == "Done again." and enabled() == [True, False]

    # By the buttons; a new edit leaves nothing to do again, and the focus is never lost.
    at(page, "#undo").click()
    assert state() == states[-2] and enabled() == [True, True]
    word(page, "Ida").click()
    assert enabled() == [True, False]
    for _ in range(len(states)):
        at(page, "#undo").click()
    # What is undone last is the text, which is there to be written anew; in it the browser undoes.
    assert texts(page, ".word") == [] and at(page, "#text").get_property("value") == "Sailors rest Ida against Titans"
    assert enabled() == [False, True] and page.switch_to.active_element == at(page, "#redo")
    at(page, "#text").send_keys(" x")
    undo(Keys.SHIFT)
    assert texts(page, ".word") == [] and enabled() == [False, True]
    at(page, "#redo").click()
    assert texts(page, ".word") == states[0][-1]


def test_several_documents_are_kept_and_exported_together(page: WebDriver, sailors: Path, saved: Callable[[str], Path]) -> None:
    try_one(page, 0)
    upload(page, sailors, "Sailors rest")
    assert texts(page, ".relation") == []
    drag(page, (0.1, 0.1), (0.4, 0.4))
    word(page, "Sailors").click()
    extract(page)
    assert [len(read_jsonl(saved("jsonl"))), len(texts(page, ".relation"))] == [1, 1]
    at(page, "#scope label:last-child").click()
    assert [document.text for document in read_jsonl(saved("jsonl"))] == [
        "breaking : Kastan star Dynamo travels",
        "Sailors rest",
    ]
    tab = page.find_elements(By.CSS_SELECTOR, "#document-list button")[0]
    tab.send_keys(Keys.ENTER)
    assert (
        page.switch_to.active_element == tab
        and len(page.find_elements(By.CSS_SELECTOR, ".relation")) == 8
        and word(page, "Dynamo").is_displayed()
    )
    for _ in range(2):
        at(page, "#remove").click()
    assert at(page, "#drop").is_displayed() and page.switch_to.active_element == at(page, "#choose")
