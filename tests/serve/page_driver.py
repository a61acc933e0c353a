"""What the tests of the page do with a browser."""

import shutil
import time
from pathlib import Path

import pytest

if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
    pytest.skip("needs a browser: apt-get install chromium chromium-driver", allow_module_level=True)
pytest.importorskip("fastapi", reason="needs the page's server: pip install 'more-r1[serve]'")
pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")

from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement


def until(page: WebDriver, condition: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not page.execute_script(f"return {condition}"):
        assert time.monotonic() < end, condition
        time.sleep(0.03)


def at(page: WebDriver, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def texts(page: WebDriver, selector: str) -> list[str]:
    return [element.text for element in page.find_elements(By.CSS_SELECTOR, selector)]


def word(page: WebDriver, text: str) -> WebElement:
    return next(each for each in page.find_elements(By.CSS_SELECTOR, ".word") if each.text == text)


def drag(page: WebDriver, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Across the picture, from and to in fractions of it."""
    picture = at(page, "#picture")
    width, height = picture.size["width"], picture.size["height"]
    chain = ActionChains(page, duration=10)
    chain.move_to_element_with_offset(picture, int((start[0] - 0.5) * width), int((start[1] - 0.5) * height)).click_and_hold()
    for share in (0.5, 1):
        x, y = (start[axis] + share * (end[axis] - start[axis]) for axis in (0, 1))
        chain.move_to_element_with_offset(picture, int((x - 0.5) * width), int((y - 0.5) * height))
    chain.release().perform()


def upload(page: WebDriver, picture: Path, text: str) -> None:
    at(page, "#file").send_keys(str(picture))
    until(page, "document.activeElement.id === 'text'")
    at(page, "#text").send_keys(text)
    at(page, "#use-text").click()
    until(page, "document.activeElement.classList.contains('word')")


def extract(page: WebDriver) -> None:
    at(page, "#extract").click()
    until(page, "document.querySelectorAll('.relation').length > 0 && !document.getElementById('work').matches('.busy')")


def try_one(page: WebDriver, number: int) -> None:
    page.find_elements(By.CSS_SELECTOR, "#examples button")[number].click()
    until(page, "document.querySelectorAll('#related .relation').length > 0")


def box(page: WebDriver, number: int = 0) -> tuple[float, ...]:
    """Left, top, right, bottom of a box as fractions of the picture, by what is on the screen."""
    left, top, right, bottom = page.execute_script(
        "const p = picture.getBoundingClientRect(), b = boxes.children[arguments[0]].getBoundingClientRect();"
        "const x = (value) => (value - p.left) / p.width, y = (value) => (value - p.top) / p.height;"
        "return [x(b.left), y(b.top), x(b.right), y(b.bottom)]",
        number,
    )
    return left, top, right, bottom


def contrast(page: WebDriver, ink: str, ground: str) -> float:
    """WCAG's contrast of two of the page's colours, by their names."""

    def luminance(name: str) -> float:
        painted = page.execute_script(
            "const c = new OffscreenCanvas(1, 1).getContext('2d'), e = document.body.appendChild(document.createElement('i'));"
            "e.style.color = `var(--${arguments[0]})`; c.fillStyle = getComputedStyle(e).color; e.remove();"
            "c.fillRect(0, 0, 1, 1); return [...c.getImageData(0, 0, 1, 1).data].slice(0, 3)",
            name,
        )
        red, green, blue = (value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in painted)
        return float(0.2126 * red + 0.7152 * green + 0.0722 * blue)

    dark, light = sorted((luminance(ink), luminance(ground)))
    return (light + 0.05) / (dark + 0.05)
