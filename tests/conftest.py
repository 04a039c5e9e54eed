"""Tests run away from the checkout: a process that they start finds the installed package, not these sources."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def away_from_the_checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty current folder, and a cache of the session's own: the user's is neither read nor filled."""
    folder = tmp_path_factory.mktemp("elsewhere")
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))
        os.chdir(folder)
        yield folder
        os.chdir(before)


@pytest.fixture
def real_clip() -> Callable[[str], Path]:
    """A file of real people by its name; the test is skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "clips"

    def find(name: str) -> Path:
        path = Path(os.environ.get("HALIGN_TEST_CLIPS", beside)) / name
        if not path.is_file():
            pytest.skip(f"no real clip {name}: set HALIGN_TEST_CLIPS to a folder that has it")
        return path

    return find
