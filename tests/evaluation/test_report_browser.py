"""The report in a real browser: Debian's chromium, headless, without a network."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_folders import HOSTILE as ANY_HOSTILE
from run_folders import STEPS, annotated, call, draw, record, write

from more_r1.evaluation.report import write_report
from more_r1.formats.more import read_more
from more_r1.reasoning.trace import Trace

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("needs a browser: apt-get install chromium chromium-driver", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webdriver import WebDriver  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

# The driver's own JSON cannot carry a lone surrogate.
HOSTILE = ANY_HOSTILE.replace("\ud800", "")
LABEL, OTHER = "/per/org/member_of", "/per/org/leader_of"
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage "
    "--force-prefers-reduced-motion --window-size=1300,900"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    draw(run, 0, 1, 3)
    hostile = {"document": HOSTILE, "tokens": [HOSTILE, "end"], "span": [0, 1], "object": HOSTILE, "completion": HOSTILE}
    records = [
        record(0, LABEL, LABEL),
        record(1, LABEL, OTHER, box=[0.75, 0.25, 0.1, 0.3]),
        record(2, "none", "none"),
        record(3, "none", None),
        record(4, OTHER, OTHER, tokens=["Leo", "leads", "the", "Otters"]),  # its picture is missing
        record(6, HOSTILE, None, **hostile),
    ]
    return write_report(write(run, records))


@pytest.fixture
def page(browser: WebDriver, report: Path) -> WebDriver:
    browser.get_log("browser")
    browser.get(report.as_uri())
    return browser


def entries(page: WebDriver) -> list[str]:
    return [element.text for element in page.find_elements(By.CSS_SELECTOR, "#list button")]


def open_object(page: WebDriver, name: str) -> None:
    search = page.find_element(By.NAME, "text")
    search.clear()
    search.send_keys(name)
    assert len(entries(page)) == 1


def test_filters_show_what_they_say(page: WebDriver) -> None:
    assert len(entries(page)) == 6
    for outcome, count in (("right", 3), ("wrong", 3), ("all", 6)):
        page.find_element(By.CSS_SELECTOR, f"input[value={outcome}] + span").click()
        assert len(entries(page)) == count
        assert page.find_element(By.ID, "count").text == f"{count} of 6"
    Select(page.find_element(By.NAME, "label")).select_by_value(OTHER)
    assert len(entries(page)) == 2
    Select(page.find_element(By.NAME, "hops")).select_by_value("2")
    assert [text.splitlines()[-1] for text in entries(page)] == [f"{LABEL} → {OTHER}"]
    page.find_element(By.NAME, "text").send_keys("nowhere")
    assert entries(page) == [] and not page.find_element(By.ID, "detail").is_displayed()


@pytest.mark.parametrize(("name", "box"), [("person_0", (0.0, 0.4, 0.5, 0.8)), ("person_1", (0.7, 0.1, 0.8, 0.4))])
def test_the_box_lies_where_it_belongs(page: WebDriver, name: str, box: tuple[float, ...]) -> None:
    open_object(page, name)
    image, drawn = page.execute_script(
        "return ['.frame img', '.frame .box'].map(name => { const {x, y, width, height} = "
        "document.querySelector(name).getBoundingClientRect(); return [x, y, width, height]; })"
    )
    assert page.execute_script("return document.querySelector('.frame img').naturalWidth") == 480
    assert image[2] / image[3] == pytest.approx(2.0, abs=0.02)
    left, top = ((drawn[axis] - image[axis]) / image[2 + axis] for axis in (0, 1))
    found = (left, top, left + drawn[2] / image[2], top + drawn[3] / image[3])
    assert found == pytest.approx(box, abs=0.005)


def test_steps_headline_and_answers_are_shown(page: WebDriver) -> None:
    open_object(page, "person_1")
    assert [element.text for element in page.find_elements(By.CSS_SELECTOR, "#steps li")] == list(STEPS)
    assert page.find_element(By.ID, "headline").text == "Maya joins the Gulls"
    assert page.find_element(By.CSS_SELECTOR, "mark").text == "Gulls"
    verdict = page.find_element(By.ID, "verdict").text.splitlines()
    assert verdict[verdict.index("Gold") + 1] == LABEL and verdict[verdict.index("Predicted") + 1] == f"{OTHER} ✗"


def test_confidence_is_shown_and_the_steps_of_what_was_withheld_or_overruled(browser: WebDriver, tmp_path: Path) -> None:
    said = Trace(STEPS, LABEL).render()
    withheld = record(0, None, None, abstained=True, confidence=0.314, completion=said)
    overruled = record(1, None, OTHER, confidence=0.5, agreement=0.75, completion=said)  # read jointly
    browser.get(write_report(write(tmp_path, [withheld, overruled])).as_uri())
    for name, rows in (
        ("person_0", {"Predicted": "withheld ?", "Confidence": "31 %"}),
        ("person_1", {"Predicted": f"{OTHER} ?", "Confidence": "50 %", "Agreement": "75 %"}),
    ):
        open_object(browser, name)
        verdict = browser.find_element(By.ID, "verdict").text.splitlines()
        shown = dict(zip(verdict[::2], verdict[1::2], strict=True))
        assert {key: value for key, value in shown.items() if key in ("Predicted", "Confidence", "Agreement")} == rows
        assert [element.text for element in browser.find_elements(By.CSS_SELECTOR, "#steps li")] == list(STEPS)


def test_a_broken_form_is_shown_as_it_came(page: WebDriver) -> None:
    open_object(page, "person_3")
    assert page.find_element(By.ID, "completion").text == "<think> Step 1: I stop here"


def test_a_missing_picture_leaves_a_note(page: WebDriver) -> None:
    open_object(page, "person_4")
    assert not page.find_element(By.CSS_SELECTOR, ".frame").is_displayed()
    assert "no such image" in page.find_element(By.CSS_SELECTOR, ".missing").text


def test_a_click_after_typing_opens_what_was_clicked(page: WebDriver) -> None:
    page.find_element(By.NAME, "text").send_keys("gulls")
    page.find_elements(By.CSS_SELECTOR, "#list button")[2].click()
    assert "person_2" in page.find_element(By.ID, "verdict").text


def test_keys_go_through_the_list(page: WebDriver) -> None:
    def current() -> int:
        buttons = page.find_elements(By.CSS_SELECTOR, "#list button")
        return [button.get_attribute("aria-current") for button in buttons].index("true")

    body = page.find_element(By.TAG_NAME, "body")
    assert current() == 0
    body.send_keys("jj")
    assert current() == 2
    page.switch_to.active_element.send_keys(Keys.ARROW_UP)
    assert current() == 1
    page.switch_to.active_element.send_keys("kkk")
    assert current() == 0
    page.switch_to.active_element.send_keys("/j")
    assert page.switch_to.active_element.get_attribute("name") == "text" and current() == 0


def test_no_text_of_the_data_runs(page: WebDriver) -> None:
    open_object(page, "pwned")
    assert page.execute_script("return document.querySelector('mark').textContent") == HOSTILE
    assert page.execute_script("return document.getElementById('completion').textContent") == HOSTILE
    assert page.execute_script("return window.pwned === undefined && document.querySelectorAll('img').length === 1")
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_both_schemes(page: WebDriver, scheme: str) -> None:
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= 360
        colour = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (colour == "rgb(22, 24, 26)") is (scheme == "dark")
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.fixture
def traced(browser: WebDriver, benchmark_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> WebDriver:
    """A page of traces: of a pair of the data that was accepted on its second call, and of a hostile one."""
    document = read_more(benchmark_dir, "train")[0]
    one = document.pairs[0]
    span = document.entity(one.entity).span
    own = {"img_id": document.id, "object": one.object, "span": [span.start, span.end]}
    strange = dict.fromkeys(("img_id", "object", "label", "expert", "verdict", "reason", "completion"), HOSTILE)
    calls = [
        call(
            0, "answer", False, **own, reason="the answer is none, which is not right", completion=Trace(STEPS, "none").render()
        ),
        call(0, **own, attempt=2, tokens_in=1234, tokens_out=56, cost=0.01234),
        call(1, **strange),
        call(2, "form", False, label=OTHER, completion="<think> Step 1: no"),
    ]
    run = annotated(tmp_path_factory.mktemp("traced") / "run", calls, benchmark_dir)
    browser.get_log("browser")
    browser.get(write_report(run).as_uri())
    return browser


def test_calls_about_a_pair_are_shown_in_order(traced: WebDriver, benchmark_dir: Path) -> None:
    choose(traced, "accepted")
    assert len(entries(traced)) == 1
    calls = [section.text.splitlines() for section in traced.find_elements(By.CSS_SELECTOR, "#calls .call")]
    assert [lines[:1] for lines in calls] == [["Attempt 1 answer"], ["Attempt 2 accepted"]]
    assert "the answer is none, which is not right" in calls[0] and "none" in calls[0]
    assert "1,234 sent, 56 written" in calls[1] and "0.0123" in calls[1]
    assert [step.text for step in traced.find_elements(By.CSS_SELECTOR, "#calls .call:last-child .steps li")] == list(STEPS)
    document = read_more(benchmark_dir, "train")[0]
    assert traced.find_element(By.CSS_SELECTOR, "mark").text == document.name(document.entity(document.pairs[0].entity))
    frame, box = (traced.find_element(By.CSS_SELECTOR, name).rect for name in (".frame img", ".frame .box"))
    left, top, right, bottom = document.object(document.pairs[0].object).box.corners
    assert (box["x"] - frame["x"]) / frame["width"] == pytest.approx(left, abs=0.02)
    assert (box["y"] - frame["y"]) / frame["height"] == pytest.approx(top, abs=0.02)
    assert (box["width"] / frame["width"], box["height"] / frame["height"]) == pytest.approx(
        (right - left, bottom - top), abs=0.02
    )


def test_traces_are_filtered_by_outcome_verdict_and_label(traced: WebDriver) -> None:
    assert len(entries(traced)) == 3
    choose(traced, "rejected")
    assert len(entries(traced)) == 1 and HOSTILE.split()[0] in entries(traced)[0]
    choose(traced, "open")
    assert "form" in entries(traced)[0] and traced.find_element(By.CSS_SELECTOR, "#calls pre").text == "<think> Step 1: no"
    choose(traced, "all")
    Select(traced.find_element(By.NAME, "verdict")).select_by_value("answer")
    assert len(entries(traced)) == 1 and LABEL in entries(traced)[0]
    Select(traced.find_element(By.NAME, "label")).select_by_value(OTHER)
    assert entries(traced) == [] and not traced.find_element(By.ID, "detail").is_displayed()


def test_no_text_of_traces_runs_and_the_page_fits_a_phone(traced: WebDriver) -> None:
    choose(traced, "rejected")
    assert traced.execute_script("return document.querySelector('#calls pre').textContent") == HOSTILE
    assert traced.execute_script("return window.pwned === undefined && document.querySelectorAll('img').length === 1")
    assert [entry for entry in traced.get_log("browser") if entry["level"] == "SEVERE"] == []
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    traced.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert traced.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        traced.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def choose(page: WebDriver, outcome: str) -> None:
    page.find_element(By.CSS_SELECTOR, f"input[value={outcome}] + span").click()
