"""What is installed is what is in the tree: no plug-in, weight or module is left out, and nothing else comes along."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGED = {"halign_bench": "halign_bench", "methods": "halign_bench/methods", "metrics": "halign_bench/metrics"}


def tree_files() -> set[str]:
    """Every file of the packaged folders, under the path it has once installed."""
    return {
        f"{installed}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, installed in PACKAGED.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that the checkout gets no build folder and lends none."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in PACKAGED:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source / file)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(out), str(source)], check=True, capture_output=True, text=True)
    (built,) = out.glob("halign_bench-*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_tree_and_no_other(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert inside == tree_files()


def test_installed_elsewhere_it_finds_every_plugin_in_its_own_files(wheel, tmp_path):
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True, text=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*command: str) -> str:
        result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)
        assert result.returncode == 0, result.stderr
        return result.stdout

    plugins = json.loads(run(sys.executable, str(site / "bin" / "halign-bench"), "list", "--json"))["plugins"]
    ours = [plugin for plugin in plugins if plugin["origin"] == "halign-bench"]
    assert [plugin for plugin in ours if plugin["status"] != "ok"] == []
    for kind in ("method", "metric", "backbone", "track"):
        folder = next(tree for tree in (f"{kind}s", f"halign_bench/{kind}s") if (ROOT / tree).is_dir())
        in_tree = {
            path.stem for path in (ROOT / folder).iterdir()
            if path.stem[0] not in "_." and (path.suffix == ".py" or (path / "__init__.py").exists())
        }  # fmt: skip
        assert {plugin["target"].rsplit(".", 1)[1] for plugin in ours if plugin["kind"] == kind} == in_tree
    # The checkout may be importable too, when it is installed in place: what counts is where these come from.
    code = "import importlib, sys; print(*[importlib.import_module(name).__file__ for name in sys.argv[1:]], sep='\\n')"
    origins = run(sys.executable, "-c", code, *{plugin["target"] for plugin in ours}).splitlines()
    assert origins and all(Path(origin).is_relative_to(site) for origin in origins)
