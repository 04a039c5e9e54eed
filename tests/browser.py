"""A real Chromium without a window, for tests that drive a page. Where there is none, they are skipped and say so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

SECONDS = 60  # that a page may take to get somewhere: a machine may be busy, and no test measures speed


@contextmanager
def chromium() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: the page was not driven")
    names = "chromium", "chromium-browser", "google-chrome"
    found = next((path for name in names if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if not found or not driver:
        pytest.skip("there is no Chromium with its chromedriver on PATH: the page was not driven")
    options = webdriver.ChromeOptions()
    options.binary_location = found
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--mute-audio", "--window-size=1200,900",
        "--autoplay-policy=no-user-gesture-required", "--disable-background-networking",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # The driver is named, so that selenium looks for none on the network.
    service = webdriver.ChromeService(executable_path=driver)
    window = webdriver.Chrome(options=options, service=service)
    window.set_script_timeout(SECONDS)
    try:
        yield window
    finally:
        window.quit()


def until(window: Any, script: str, *arguments: Any) -> Any:
    """What a JavaScript expression gives once it is true; fails with it after `SECONDS`."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(window, SECONDS, poll_frequency=0.05).until(
        lambda _: window.execute_script(f"return {script}", *arguments), f"never true: {script}"
    )


def requested(window: Any) -> list[str]:
    """Addresses that the page asked for since the last call."""
    messages = (json.loads(entry["message"])["message"] for entry in window.get_log("performance"))
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def scheme(window: Any, light_or_dark: str) -> None:
    """Light or dark, and no motion: a page that glides to where it is told to cannot be pointed at meanwhile."""
    wanted = {"prefers-color-scheme": light_or_dark, "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in wanted.items()]
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
