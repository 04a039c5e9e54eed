"""The labelling page in a real browser: keys, time, undo, both videos in step, light and dark, names for readers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_prefs_server import PROMPTS, labels, make_session, serving, start

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium, which drives the browser, is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium with its driver here (Debian: chromium, chromium-driver)"
)
WAIT = 60  # seconds; a busy machine takes its time


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--autoplay-policy=no-user-gesture-required", "--window-size=1000,800"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def session(tmp_path: Path) -> Path:
    return make_session(tmp_path / "session", frames=50)


def until(browser: Any, script: str) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, WAIT, 0.1).until(lambda b: b.execute_script(f"return {script}"))


def text(browser: Any, element: str) -> str:
    return browser.execute_script("return document.getElementById(arguments[0]).textContent", element)


def press(browser: Any, keys: str, answered: int) -> None:
    """Presses the keys and waits until so many answers are told."""
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(keys).perform()
    until(browser, f"document.getElementById('progress').textContent.startsWith('{answered} of ')")


def opened(browser: Any, page: Any) -> None:
    browser.get(f"http://{page.host}{page.base}")
    until(browser, "document.querySelector('fieldset[aria-current]') !== null")


def test_a_sitting_by_keys_alone(browser, session):
    with serving(session) as (page, running):
        opened(browser, page)
        assert text(browser, "said") == "Pair 1 of 3: motion?"
        press(browser, "1", 1)
        assert text(browser, "said") == "motion: 1 is better. Pair 1 of 3: fidelity?"
        pressed = "document.querySelector('[aria-pressed=true][data-side]').dataset.side"
        assert browser.execute_script(f"return {pressed}") == "1"
        press(browser, "t", 2)
        press(browser, "2", 3)
        assert "left" in text(browser, "progress")  # the time
        press(browser, "u", 2)
        assert text(browser, "said") == "Undone. Pair 2 of 3: motion?"
        for answered in range(3, 2 * PROMPTS + 1):
            press(browser, "1", answered)
        until(browser, "!document.getElementById('finished').hidden")
        assert browser.execute_script("return document.activeElement.id") == "finished"
        shown = [running.sitting.shown(n) for n in range(PROMPTS)]
    side1 = [("left", "right")[sides[0]] for sides in shown]
    assert [label for _, _, label in labels(session)] == [side1[0], "tie", side1[1], side1[1], side1[2], side1[2]]
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []  # nothing of the page is forbidden by its own policy, and nothing is missing


def test_both_videos_are_of_the_pair_and_play_in_step(browser, session):
    with serving(session) as (page, _):
        opened(browser, page)
        assert [browser.execute_script(f"return document.getElementById('video{n}').currentSrc.split('/').slice(-3)")
                for n in (1, 2)] == [["video", "0", "1"], ["video", "0", "2"]]  # fmt: skip
        until(browser, "document.getElementById('video1').currentTime > 0.2")
        until(browser, "!document.getElementById('video1').paused")
        apart = until(
            browser,
            "(() => { const [a, b] = [1, 2].map((n) => document.getElementById('video' + n));"
            " const d = Math.abs(a.currentTime - b.currentTime); return d < 0.1 ? String(d) : false; })()",
        )
        assert float(apart) < 0.1
        press(browser, " ", 0)
        until(browser, "document.getElementById('video1').paused && document.getElementById('video2').paused")
        browser.execute_script("document.getElementById('video1').currentTime = 1.5")  # by a range request
        until(browser, "Math.abs(document.getElementById('video2').currentTime - 1.5) < 0.05")
        press(browser, "r", 0)
        until(browser, "!document.getElementById('video2').paused && document.getElementById('video2').currentTime < 1")


def test_by_tab_and_enter_and_with_the_keys_switched_off(browser, session):
    from selenium.webdriver import ActionChains, Keys

    with serving(session) as (page, _):
        opened(browser, page)
        browser.execute_script("document.getElementById('keys').click()")
        ActionChains(browser).send_keys("12t").perform()
        browser.execute_script("document.querySelector('fieldset[aria-current] button').focus()")
        ActionChains(browser).send_keys(Keys.TAB, Keys.ENTER).perform()  # the second of three: side 2
        until(browser, "document.getElementById('progress').textContent.startsWith('1 of ')")
        focused = "document.activeElement.closest('fieldset').querySelector('legend').textContent"
        assert browser.execute_script(f"return {focused}") == "fidelity"  # stays in the row
        assert text(browser, "said").startswith("motion: 2 is better.")


def test_every_control_has_a_name_and_both_schemes_have_contrast(browser, session):
    with serving(session) as (page, _):
        opened(browser, page)
        tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        controls = [node for node in tree if not node.get("ignored") and node.get("role", {}).get("value") in
                    ("button", "checkbox", "progressbar", "progress", "Video", "group", "heading")]  # fmt: skip
        assert len(controls) >= 10
        assert [node["role"]["value"] for node in controls if not node.get("name", {}).get("value")] == []
        assert {node["name"]["value"] for node in controls} >= {"Video 1", "Video 2", "motion", "fidelity"}
        for scheme in ("light", "dark"):
            browser.execute_cdp_cmd(
                "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            )
            colours = browser.execute_script(
                "const probe = document.createElement('div'); document.body.append(probe);"
                "probe.style.background = 'Canvas'; const s = getComputedStyle(probe);"
                "const found = [s.color, s.backgroundColor]; probe.remove(); return found"
            )
            ink, paper = (sum(map(int, colour[4:].rstrip(")").split(",")[:3])) / 3 for colour in colours)
            assert (ink < 60 and paper > 200) if scheme == "light" else (ink > 200 and paper < 60), (scheme, colours)


def test_when_the_command_has_stopped_the_page_says_so(browser, session):
    from selenium.webdriver import ActionChains

    process, page = start(session, "kim")
    with process:
        opened(browser, page)
        press(browser, "1", 1)
        process.kill()
    ActionChains(browser).send_keys("1").perform()
    until(browser, "document.getElementById('error').textContent.includes('start it again')")
