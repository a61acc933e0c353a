"""The report in a real browser: Debian's chromium, headless, without a network."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_folders import HOSTILE as ANY_HOSTILE
from run_folders import STEPS, draw, record, write

from more_r1.evaluation.report import write_report

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
