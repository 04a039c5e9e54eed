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


LOADED = "document.getElementById('pair').getAttribute('aria-busy') === 'false'"


def press(browser: Any, keys: str, answered: int) -> None:
    """Presses the keys and waits until so many answers are told, and the videos of the next are there."""
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(keys).perform()
    until(browser, f"document.getElementById('progress').textContent.startsWith('{answered} of ') && {LOADED}")


def opened(browser: Any, page: Any) -> None:
    browser.get(f"http://{page.host}{page.base}")
    until(browser, f"document.querySelector('fieldset[aria-current]') !== null && {LOADED}")


def emulate(browser: Any, **features: str) -> None:
    """Of the media features of CSS, for example prefers_color_scheme="dark"."""
    given = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": given})


def test_a_sitting_by_keys_alone(browser, session):
    with serving(session) as (page, running):
        opened(browser, page)
        assert text(browser, "said") == "Pair 1 of 3: motion?"
        press(browser, "1", 1)
        assert text(browser, "said") == "motion: 1 is better. Pair 1 of 3: fidelity?"
        pressed = "document.querySelector('fieldset button[aria-pressed=true]').dataset.side"
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


def test_both_videos_are_whole_and_play_in_step(browser, session):
    apart = (
        "const [a, b] = [1, 2].map((n) => document.getElementById('video' + n)), done = arguments[0], found = [];"
        "const watch = () => { if (!a.paused && !b.paused && !a.seeking && !b.seeking)"
        " found.push([a.currentTime, b.currentTime]); if (found.length < 150) requestAnimationFrame(watch);"
        " else done(found); }; watch();"
    )
    paused = "document.getElementById('video1').paused && document.getElementById('video2').paused"
    with serving(session) as (page, _):
        opened(browser, page)
        times = browser.execute_async_script(apart)  # more than a round of two seconds
        assert max(time for time, _ in times) > 1
        assert sorted(abs(one - other) for one, other in times)[int(0.95 * len(times))] < 0.04  # a frame
        press(browser, " ", 0)
        until(browser, paused)
        one, other = (browser.execute_script(f"return document.getElementById('video{n}').currentTime") for n in (1, 2))
        assert abs(one - other) < 0.08
        assert text(browser, "mute") == "Sound off"
        press(browser, "m", 0)
        assert text(browser, "mute") == "Sound on"
        assert browser.execute_script("return document.getElementById('video1').muted")
        press(browser, "r", 0)
        until(browser, f"!({paused}) && document.getElementById('video2').currentTime < 1")
        until(browser, "document.getElementById('reference').naturalWidth === 16")
        browser.execute_script("document.getElementById('video2').currentTime += 0.5")  # out of step
        until(browser, "Math.abs(document.getElementById('video1').currentTime -"
                       " document.getElementById('video2').currentTime) < 0.04")  # fmt: skip


def test_nothing_moves_by_itself_for_who_does_not_want_that(browser, session):
    emulate(browser, prefers_reduced_motion="reduce")
    try:
        with serving(session) as (page, _):
            opened(browser, page)
            assert browser.execute_script("return document.getElementById('video1').paused")
            press(browser, " ", 0)
            until(browser, "document.getElementById('video1').ended && document.getElementById('video2').ended")
    finally:
        emulate(browser)


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


def test_every_control_has_a_name(browser, session):
    with serving(session) as (page, _):
        opened(browser, page)
        tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    controls = [node for node in tree if not node.get("ignored") and node.get("role", {}).get("value") in
                ("button", "checkbox", "progressbar", "Video", "group", "heading", "image")]  # fmt: skip
    assert [node["role"]["value"] for node in controls if not node.get("name", {}).get("value")] == []
    assert {node["name"]["value"].strip() for node in controls} >= {  # some Chromiums keep the label's space
        "Which is better?", "kim’s progress", "Reference: the person that both videos should show", "Video 1",
        "Video 2", "Playing", "Sound off m", "motion", "fidelity", "1 is better 1", "2 is better 2", "Tie t",
        "Undo the last answer u", "Single keys answer and play",
    }  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(browser, session, scheme):
    """By WCAG 2.2, 1.4.3: at least 4.5, of everything but what is switched off."""
    contrasts = (
        "const numbers = (c) => c.match(/[\\d.]+/g).map(Number);"
        "const light = (c) => { const [r, g, b] = numbers(c).map((v) => v / 255)"
        ".map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);"
        " return 0.2126 * r + 0.7152 * g + 0.0722 * b; };"
        "const behind = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;"
        " if (numbers(c)[3] !== 0) return c; } };"
        "return [...document.querySelectorAll('h1, p, span, legend, figcaption, label, button:enabled, kbd')]"
        ".filter((e) => e.checkVisibility() && e.textContent.trim()).map((e) => {"
        " const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];"
        " return [e.textContent.trim(), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), b]; });"
    )
    emulate(browser, prefers_color_scheme=scheme)
    try:
        with serving(session) as (page, _):
            opened(browser, page)
            press(browser, "1", 1)
            found = browser.execute_script(contrasts)
    finally:
        emulate(browser)
    assert len(found) > 15 and [row for row in found if row[1] < 4.5] == []
    assert (found[0][2] > 0.8) if scheme == "light" else (found[0][2] < 0.1)


def test_a_narrow_window_has_both_videos_side_by_side_and_nothing_beyond_its_edge(browser, session):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 340, "height": 700, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        with serving(session) as (page, _):
            opened(browser, page)
            boxes = [browser.find_element("id", f"video{n}").rect for n in (1, 2)]
            assert browser.execute_script("return document.documentElement.scrollWidth") <= 340
            assert boxes[0]["y"] == boxes[1]["y"] and boxes[1]["x"] >= boxes[0]["x"] + boxes[0]["width"] > 100
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_when_the_command_was_killed_the_page_says_so_and_the_next_one_goes_on(browser, session):
    from selenium.webdriver import ActionChains

    process, page = start(session, "kim")
    with process:
        opened(browser, page)
        press(browser, "1", 1)
        process.kill()
    ActionChains(browser).send_keys("1").perform()
    until(browser, "document.getElementById('error').textContent.includes('start it again')")
    process, page = start(session, "kim")
    with process:
        opened(browser, page)
        assert text(browser, "progress") == "1 of 6 answers" and text(browser, "error") == ""
        assert text(browser, "said") == "Pair 1 of 3: fidelity?"
        process.kill()


def test_a_video_that_is_gone_is_told_and_cannot_be_answered(browser, session):
    from selenium.webdriver import ActionChains

    with serving(session) as (page, running):
        (session / f"videos/00001-{running.sitting.shown(1)[0]}.mp4").unlink()
        opened(browser, page)
        press(browser, "1", 1)
        ActionChains(browser).send_keys("1").perform()
        until(browser, "document.getElementById('error').textContent.includes('is gone')")
        ActionChains(browser).send_keys("1").perform()
        until(browser, "document.getElementById('said').textContent === 'The videos are not there yet.'")
    assert len(labels(session)) == 2
