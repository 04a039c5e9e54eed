"""Tests run away from the checkout: a process that they start finds the installed package, not these sources."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fault_table
import pytest
from runs import METHODS, Runs, started


def pytest_addoption(parser: Any) -> None:
    fault_table.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    fault_table.configure(config)
    # Shells start what is in the background with Ctrl-C ignored, and commands that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Published:
    """Tiny checkpoints of published models by their name in `tiny_models`, written once and loaded as `run` does."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str) -> Path:
        import tiny_models
        import tiny_parts

        folder = self.root / name
        if not folder.exists():
            (tiny_parts.wav2vec2 if name == "wav2vec2" else partial(tiny_models.save, name))(folder)
        return folder

    def load(self, name: str) -> Any:
        import tiny_models

        from halign_bench import registry

        choice = tiny_models.choice(self.folder(name), self.folder("wav2vec2"))
        return choice.load(registry.get("backbone", tiny_models.BACKBONE[name]), "cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """The command line with the tiny track, in processes that may be killed."""
    with started(tmp_path_factory.mktemp("runs")) as made:
        yield made


@pytest.fixture(scope="module")
def whole(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    code, _, progress = runs(out, *METHODS)
    assert code == 0, progress
    return out


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return Published(tmp_path_factory.mktemp("models"))


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
