"""`more-r1 serve` with the shipped model, and Debian's chromium in front of it: one of each for all tests of the page.

conftest.py imports these: nothing is imported here that only those tests need.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from more_r1.document import Document
from more_r1.formats.jsonl import read_jsonl

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --force-prefers-reduced-motion --window-size=1300,1000"
)
# What is in the page itself; the browser's own first tab.
OWN = ("data", "blob", "chrome")


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    command = [sys.executable, "-m", "more_r1", "serve", "--port", "0", "--no-open", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[0]
        server.terminate()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: WebDriver, address: str) -> Iterator[WebDriver]:
    """A fresh page. Whatever a test does, no request leaves the host and no error or blocked script is logged."""
    from page_driver import until

    for name in ("browser", "performance"):
        browser.get_log(name)
    browser.get(address)
    until(browser, "document.querySelectorAll('#examples button').length === 3")
    yield browser
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [message["params"]["request"]["url"] for message in sent if message["method"] == "Network.requestWillBeSent"]
    assert {urlsplit(url).netloc for url in urls if urlsplit(url).scheme not in OWN} == {urlsplit(address).netloc}
    logged = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert [message for message in logged if "Failed to load resource" not in message] == []


@pytest.fixture(scope="session")
def examples() -> list[Document]:
    return read_jsonl(Path(str(resources.files("more_r1") / "serve" / "examples.jsonl")))


@pytest.fixture
def sailors(examples: list[Document], tmp_path: Path) -> Path:
    """The picture of `breaking : Sailors rest Ida against Titans`: its third object is one of the Sailors, against Titans."""
    assert isinstance(examples[1].image, bytes)
    path = tmp_path / "Sailors & co.png"
    path.write_bytes(examples[1].image)
    return path


@pytest.fixture
def saved(page: WebDriver, tmp_path: Path) -> Callable[[str], Path]:
    """Presses a button of Export and gives the file."""
    from page_driver import at

    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})

    def press(format: str) -> Path:
        before = set(tmp_path.iterdir())
        button = at(page, f"#export button[value={format}]")
        page.execute_script("arguments[0].scrollIntoView()", button)
        button.click()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            new = [
                path
                for path in set(tmp_path.iterdir()) - before
                if not path.name.startswith(".") and path.suffix != ".crdownload"
            ]
            if new:
                return new[0].rename(tmp_path / f"{len(before)}-{new[0].name}")
            time.sleep(0.05)
        raise AssertionError(at(page, "#export-problem").text or "nothing was saved")

    return press
