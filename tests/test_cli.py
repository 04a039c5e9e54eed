"""The command line as its users meet it: exit codes, one sentence for a mistake, one JSON document, and no waiting."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from halign_bench import __version__, doctor


def halign(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "halign_bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def without_torch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Like `halign`, and fails when the command imported torch, diffusers, scipy, pandas or PyAV on the way."""
    code = (
        "import sys; from halign_bench.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'diffusers', 'scipy', 'pandas', 'pyarrow', 'av', 'matplotlib'} & set(sys.modules); "
        "print('imported:', *heavy, file=sys.stderr) if heavy else None; sys.exit(99 if heavy else code)"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)


COMMANDS = (
    "run", "leaderboard", "list", "conformance", "doctor", "pretrain", "analyze", "assets", "score", "fitness",
    "validate", "figures", "check", "report", "prefs",
)  # fmt: skip


@pytest.mark.parametrize("arguments", [["--help"], [], *[[command, "--help"] for command in COMMANDS]])
def test_help_shows_examples_without_importing_torch(arguments):
    result = without_torch(*arguments)
    assert result.returncode == 0, result.stderr
    assert "Examples:" in result.stdout and "halign-bench " in result.stdout
    assert result.stderr == ""


def test_help_names_every_command_and_only_those_that_exist():
    text = without_torch("--help").stdout
    lines = text.split("Commands:")[1].split("Examples:")[0].splitlines()
    listed = {line.split()[0] for line in lines if line[2:3].strip()}
    assert listed == set(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--methods", "tpoo"], ["Unknown method 'tpoo'", "did you mean"]),
        (["run", "--methods", "sft,tpoo+base"], ["Unknown method 'tpoo'"]),
        (["run", "--methods", "diffusion-dpo[beta=5"], ["diffusion-dpo[beta=5", "without its"]),
        (["run", "--methods", "sft", "--seeds", "many"], ["--seeds", "many"]),
        (["run", "--methods", "sft", "--seeds", "0"], ["--seeds 0 asks for no seed"]),
        (["run", "--methods", "sft", "--nfe", "0"], ["--nfe"]),
        (["run", "--methods", "sft", "--track", "pupet"], ["Unknown track 'pupet'", "did you mean 'puppet'"]),
        (["run", "--methods", "sft", "--backbone", "hunyuan"], ["Unknown backbone 'hunyuan'", "puppet-dit"]),
        (["run", "--methods", "sft", "--frames", "8"], ["--frames 8", "1 + 4n"]),
        (["run", "--methods", "sft", "--data", "no-such-folder"], ["--data no-such-folder", "no such folder"]),
        (["run", "--methods", "sft", "--profile", "smok"], ["--profile", "smok", "did you mean", "smoke"]),
        (["run", "--methods", "sft", "--executor", "cloud"], ["--executor cloud"]),
        (["run", "--methods", "sft", "--set", "beta=3"], ["--set beta=3", "method.key=value"]),
        (["run", "--methods", "sft", "--set", "sft.critrion=x"], ["critrion", "criterion"]),
        (["run", "--methods", "diffusion-dpo[beta=x]"], ["beta=x"]),
        (["run"], ["Missing option '--methods'"]),
        (["run", "--methods"], ["--methods", "requires an argument"]),
        (["run", "--method", "sft"], ["No such option '--method'", "did you mean '--methods'"]),
        (["rnu"], ["No such command 'rnu'", "did you mean 'run'"]),
        (["list", "methds"], ["methds", "did you mean 'methods'"]),
        (["conformance"], ["Missing argument"]),
        (["conformance", "sfft"], ["Unknown plug-in 'sfft'", "did you mean 'sft'"]),
        (["leaderboard"], ["Missing argument"]),
        (["leaderboard", "x", "--format", "pfd"], ["--format", "pfd"]),
        (["leaderboard", "no-such-run"], ["no-such-run"]),
        (["pretrain", "--out", "x", "--stage", "bsae"], ["--stage", "did you mean 'base'"]),
        (["pretrain", "--out", "x", "--steps", "0"], ["--steps"]),
        (["pretrain", "--out", "x", "--backbone", "puppet-net"], ["--backbone", "did you mean 'puppet-unet'"]),
        (["doctor", "extra"], ["extra"]),
        (["analyze"], ["Missing command"]),
        (["analyze", "timestep"], ["No such command 'timestep'", "did you mean 'timesteps'"]),
        (["analyze", "timesteps", "--levels", "0.5,1"], ["--levels 0.5,1", "1 is no noise level between 0 and 1"]),
        (["analyze", "timesteps", "--nfe", "1"], ["--nfe"]),
        (["analyze", "timesteps", "--clips", "1"], ["--clips"]),
        (["analyze", "timesteps", "--track", "pupet"], ["Unknown track 'pupet'", "did you mean 'puppet'"]),
        (["analyze", "timesteps", "--track", "clips"], ["--track clips", "--data DIR"]),
        (["analyze", "timesteps", "--data", "."], ["--data .", "leave --data out"]),
        (["check"], ["Missing argument"]),
        (["check", "x"], ["--against BASELINE", "--plan"]),
        (["check", "x", "--against", "y", "--margin", "5"], ["--margin 5", "name the score"]),
        (["run", "--methods", "sft", "--preferences", "none.jsonl"], ["--preferences none.jsonl", "no such file"]),
        (["prefs"], ["Missing command"]),
        (["prefs", "lable"], ["No such command 'lable'", "did you mean 'label'"]),
        (["prefs", "sample"], ["Missing option '--out'"]),
        (["prefs", "sample", "--out", "x", "--track", "pupet"], ["Unknown track 'pupet'", "did you mean 'puppet'"]),
        (["prefs", "sample", "--out", "x", "--candidates", "1"], ["--candidates"]),
        (["prefs", "sample", "--out", "x", "--criteria", "a,B"], ["--criteria a,B", "B is no name"]),
        (["prefs", "sample", "--out", "x", "--track", "clips"], ["--track clips", "--data DIR"]),
        (["prefs", "label", "x"], ["Missing option '--annotator'"]),
        (["prefs", "label", "x", "--annotator", "../y"], ["--annotator ../y", "small letters"]),
        (["prefs", "label", "x", "--annotator", "y"], ["x: holds no session.json", "prefs sample"]),
        (["prefs", "export", "x", "--ties", "kep"], ["--ties", "did you mean 'keep'"]),
        (["prefs", "export", "x"], ["x: holds no session.json"]),
        (["prefs", "agreement", "x"], ["x: holds no session.json"]),
        (["assets"], ["Missing command"]),
        (["assets", "fetsh"], ["No such command 'fetsh'", "did you mean 'fetch'"]),
        (["assets", "fetch"], ["give names, or --all"]),
        (["assets", "fetch", "s3fd", "--all"], ["names or --all"]),
        (["assets", "fetch", "s4fd"], ["Unknown asset 's4fd'", "did you mean 's3fd'"]),
        (["assets", "fetch", "s3fd", "--mirror", "somewhere"], ["--mirror somewhere", "https://host/weights"]),
        (["assets", "fetch", "i3d-videogpt"], ["i3d-videogpt", "nobody states its sha256", "--trust"]),
        (["assets", "add", "s3fd"], ["Missing argument"]),
        (["assets", "add", "s3fd", "nowhere.pth"], ["nowhere.pth: no such file"]),
        (["assets", "verify", "s4fd"], ["Unknown asset 's4fd'"]),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_mistake_is_answered_at_once_in_one_sentence(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = without_torch(*arguments)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("halign-bench: ")
    assert [word for word in words if word not in result.stderr] == []
    assert list(tmp_path.iterdir()) == []  # a wrong request leaves nothing behind


def test_version():
    result = halign("--version")
    assert (result.returncode, result.stdout) == (0, f"halign-bench {__version__}\n")


def test_list_tells_kinds_summaries_origins_and_status():
    result = halign("list", "--json")
    document = json.loads(result.stdout)
    plugins = {(p["kind"], p["name"]): p for p in document["plugins"]}
    assert document["schema"] == "halign-bench/list/1"
    for key in (("method", "base"), ("method", "sft"), ("method", "diffusion-dpo"), ("metric", "fid"),
                ("backbone", "puppet-dit"), ("track", "puppet")):  # fmt: skip
        assert plugins[key]["status"] == "ok" and plugins[key]["summary"] and plugins[key]["error"] is None


def test_list_of_one_kind_as_a_table_needs_no_torch():
    result = without_torch("list", "methods")
    assert result.returncode == 0 and "diffusion-dpo" in result.stdout and "fvd" not in result.stdout
    assert without_torch("list", "metrics").returncode == 0


def test_conformance_of_a_method_passes_with_exit_code_0():
    result = halign("conformance", "diffusion-dpo")
    assert result.returncode == 0 and "0 failed" in result.stdout and result.stdout.count("failed") == 1


def test_doctor_reports_every_subject_and_fails_where_a_run_would(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HALIGN_CACHE", str(tmp_path / "file" / "cache"))
    result = halign("doctor", "--json")
    document = json.loads(result.stdout)
    findings = {finding["subject"]: finding for finding in document["findings"]}
    for subject in ("python", "torch", "memory", "disk", "plug-ins"):
        assert findings[subject]["status"] in ("ok", "warning") and findings[subject]["detail"]
    assert findings["cache"]["status"] == "failed" and str(tmp_path) in findings["cache"]["detail"]
    assert result.returncode == 1 and document["passed"] is False


def test_doctor_survives_what_it_cannot_examine(monkeypatch):
    def breaks():
        raise OSError("no such device")
        yield

    monkeypatch.setattr(doctor, "devices", breaks)
    findings = doctor._safely(doctor.devices)
    assert [(f.subject, f.status, f.detail) for f in findings] == [("breaks", "failed", "OSError: no such device")]


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m halign_bench list metrics | head -n 1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert result.stderr == ""


def test_a_stopped_pretraining_says_that_the_same_command_goes_on(tmp_path):
    command = [sys.executable, "-m", "halign_bench", "pretrain", "--out", str(tmp_path), "--stage", "codec"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("codec clips"):
                process.send_signal(signal.SIGINT)
                break
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.splitlines()[-1] == (
        f"halign-bench: interrupted; the same command goes on from what is kept in {tmp_path}"
    )
