"""Discovery: what is there is listed, what is broken says so, and nobody else's mistake breaks ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from halign_bench import registry
from halign_bench.errors import PluginError
from halign_bench.method import AlignmentMethod
from halign_bench.metric import Metric

PLUGIN_PACKAGE = Path(__file__).parent / "plugin_package"


@pytest.fixture(scope="module")
def plugin_site(tmp_path_factory) -> Path:
    """A folder with the example package really installed, entry points included."""
    site = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "plugin_package"
    source.mkdir()
    for file in [PLUGIN_PACKAGE / "pyproject.toml", *PLUGIN_PACKAGE.glob("halign_example/*.py")]:
        copy = source / file.relative_to(PLUGIN_PACKAGE)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(file.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True, capture_output=True, text=True)
    return site


@pytest.fixture
def halign(plugin_site):
    """The command line in a process of its own that sees the example package."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(plugin_site)}
        command = [sys.executable, "-m", "halign_bench", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=plugin_site, timeout=120)

    return run


def listed(halign, kind: str) -> dict[tuple[str, str], dict[str, str]]:
    result = halign("list", kind, "--json")
    assert result.returncode == 0, result.stderr
    return {(p["name"], p["origin"]): p for p in json.loads(result.stdout)["plugins"]}


def test_an_installed_package_is_found_and_its_broken_plugin_breaks_nothing_else(halign):
    methods = listed(halign, "methods")
    assert methods["example-sft", "halign-example"]["status"] == "ok"
    assert methods["example-sft", "halign-example"]["summary"] == "denoising loss on winners, times a number"
    broken = methods["example-broken", "halign-example"]
    assert broken["status"] == "broken" and "a_package_that_is_not_installed" in broken["error"]
    assert "name 'example-sft'" in methods["example-misnamed", "halign-example"]["error"]
    assert methods["base", "halign-bench"]["status"] == "ok"
    metrics = listed(halign, "metrics")
    assert metrics["example_brightness", "halign-example"]["status"] == "ok"
    assert metrics["psnr", "halign-bench"]["status"] == "ok"


def test_a_collision_names_both_sides_and_neither_wins_silently(halign):
    methods = listed(halign, "methods")
    for origin in ("halign-bench", "halign-example"):
        error = methods["sft", origin]["error"]
        assert "halign_bench.methods.sft" in error and "halign_example.method:ExampleSFT" in error
    result = halign("run", "--methods", "sft")
    assert result.returncode == 2 and "halign-example" in result.stderr and "Traceback" not in result.stderr


def test_a_plugin_that_prints_leaves_stdout_a_json_document(halign):
    result = halign("list", "methods", "--json")
    json.loads(result.stdout)
    assert "noise on stdout" in result.stderr


def test_conformance_runs_on_third_party_plugins_and_notices_a_bad_one(halign):
    result = halign("conformance", "example-sft", "--json")
    report = json.loads(result.stdout)
    assert result.returncode == 0 and report["passed"], result.stdout
    assert any(check["status"] == "passed" for check in report["checks"])
    assert halign("conformance", "example_brightness").returncode == 0
    result = halign("conformance", "example_zero", "--json")
    failed = [check for check in json.loads(result.stdout)["checks"] if check["status"] == "failed"]
    assert result.returncode == 1 and any("0.0" in check["detail"] for check in failed)
    result = halign("conformance", "example-broken")
    assert result.returncode == 1 and "a_package_that_is_not_installed" in result.stdout


def test_names_are_the_public_files_of_the_folder():
    for kind in registry.KINDS:
        package = __import__(f"halign_bench.{kind}s", fromlist=["x"])
        files = {path for folder in package.__path__ for path in Path(folder).iterdir()}
        stems = {
            path.stem for path in files
            if path.stem[0] not in "_." and (path.suffix == ".py" or (path / "__init__.py").exists())
        }  # fmt: skip
        expected = stems if kind == "metric" else {stem.replace("_", "-") for stem in stems}
        assert expected and expected <= set(registry.names(kind))


def test_every_plugin_of_ours_can_be_used_and_says_what_it_is():
    ours = [p for p in registry.describe() if p.origin == "halign-bench"]
    assert ours and [p for p in ours if p.error or not p.summary] == []


@pytest.mark.parametrize(
    ("given", "known", "expected"),
    [
        ("tpoo", ["base", "tpo", "diffusion-dpo"], "tpo"), ("tpoo", ["base", "sft", "diffusion-dpo"], "diffusion-dpo"),
        ("Diffusion_DPO", ["base", "diffusion-dpo"], "diffusion-dpo"), ("SFT", ["base", "sft"], "sft"),
        ("zzz", ["base", "sft"], None), ("sft", [], None),
    ],
)  # fmt: skip
def test_did_you_mean(given, known, expected):
    assert registry.nearest(given, known) == expected
    sentence = registry.unknown("method", given, known)
    assert given in sentence and ("did you mean" in sentence) == (expected is not None)


def test_an_unknown_name_raises_with_a_suggestion():
    with pytest.raises(PluginError, match=r"Unknown method 'sfft': did you mean 'sft'\?"):
        registry.get("method", "sfft")


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


def test_a_class_registered_in_this_process_is_found(clean_registry):
    @registry.register
    class Local(AlignmentMethod):
        name = "local-only"

    assert "local-only" in registry.names("method") and registry.get("method", "local-only") is Local


def test_two_classes_of_one_name_are_refused_naming_both(clean_registry):
    def make(where: str) -> type:
        return type("Twin", (AlignmentMethod,), {"name": "twin", "__module__": where, "__qualname__": "Twin"})

    registry.register(make("first_package"))
    registry.register(make("first_package"))  # a module that is loaded again is not another plug-in
    with pytest.raises(PluginError, match=r"first_package\.Twin and second_package\.Twin"):
        registry.register(make("second_package"))
    # The same name in another kind is nobody's business.
    registry.register(type("Twin", (Metric,), {"name": "twin", "__module__": "third_package"}))


@pytest.mark.parametrize("attributes", [{}, {"name": ""}, {"name": "Upper"}, {"name": None}])
def test_a_class_without_a_proper_name_is_refused(clean_registry, attributes):
    with pytest.raises(PluginError, match="lower-case"):
        registry.register(type("Nameless", (AlignmentMethod,), attributes))


def test_a_class_of_no_kind_is_refused(clean_registry):
    with pytest.raises(PluginError, match="kind"):
        registry.register(type("Stray", (), {"name": "stray"}))


def test_a_builtin_that_raises_or_exits_is_isolated(clean_registry, monkeypatch, tmp_path):
    package = __import__("halign_bench.methods", fromlist=["x"])
    (tmp_path / "exits.py").write_text("raise SystemExit(3)")
    (tmp_path / "silent.py").write_text("")
    (tmp_path / "_helper.py").write_text("raise RuntimeError('never imported')")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    infos = {p.name: p for p in registry.describe(["method"])}
    assert "SystemExit" in infos["exits"].error
    assert "registers no class" in infos["silent"].error
    assert "helper" not in infos and "-helper" not in infos
    assert infos["base"].error is None


def test_listing_names_imports_no_plugin():
    code = (
        "import sys; from halign_bench import registry; [registry.names(k) for k in registry.KINDS]; "
        "plugins = ('halign_bench.methods.', 'halign_bench.metrics.', 'halign_bench.tracks.', 'torch'); "
        "loaded = [name for name in sys.modules if name.startswith(plugins)]; assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("problem", [MemoryError(), ImportError("x.so: failed to map segment from shared object")])
def test_a_plugin_that_finds_no_memory_is_not_taken_for_a_broken_one(problem):
    """A run would go on without the metric, and tie its folder to a protocol that lacks it."""

    class Point:
        def load(self):
            raise problem

    with pytest.raises(type(problem)):
        registry._load(registry.Entry("metric", "x", "somebody", "package.x", Point()))
