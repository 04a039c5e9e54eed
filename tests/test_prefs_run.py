"""From a session to a trained method: the real commands, on the tiny track and, slowly, on the puppet and on videos."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import media_files
import pytest
from prefs_files import jsonl, labelled, pair
from runs import TESTS, Runs

from halign_bench.media import probe, read_audio
from halign_bench.prefs.answers import answers_path
from halign_bench.prefs.lines import parse
from halign_bench.prefs.session import read_session
from halign_bench.prefs.sitting import Sitting
from halign_bench.results import read_record

TINY = "--track", "tiny-scored", "--backbone", "tiny-dit"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *([before] if before else [])])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    yield Runs(tmp_path_factory.mktemp("runs"))
    os.environ.pop("PYTHONPATH") if before is None else os.environ.__setitem__("PYTHONPATH", before)


@pytest.fixture(scope="module")
def session(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sessions") / "session"
    code, said, told = sample(runs, out)
    assert code == 0, told
    assert said == f"{out}: 6 prompts, 6 pairs, motion, fidelity\n"
    return out


def sample(runs: Runs, out: Path, *options: str) -> tuple[int, str, str]:
    numbers = "--prompts", "6", "--candidates", "2", "--nfe", "2"
    return runs.finish(runs.command("prefs", "sample", "--out", str(out), *TINY, *numbers, *options))


def judge(session: Path, annotator: str, flip: int = 0) -> None:
    """Answers as the automatic scores say; but to the first `flip` pairs the other way round."""
    from halign_bench.prefs.answers import AnswerLog

    found = read_session(session)
    with AnswerLog.open(session, annotator) as log:
        sitting = Sitting(found, annotator, log)
        while (following := sitting.next()) is not None:
            number, criterion = following
            question = found.questions[number]
            candidates = found.prompts[question.prompt].candidates
            scores = [candidates[k].scores[criterion] for k in sitting.shown(number)]
            best = 0 if None in scores or scores[0] == scores[1] else 1 if scores[0] > scores[1] else 2
            sitting.answer(number, criterion, 3 - best if best and number < flip else best, 1.0)


def test_a_session_has_videos_with_sound_noise_and_scores(session: Path) -> None:
    found = read_session(session)
    assert found.missing() == [] and found.criteria == ["motion", "fidelity"]
    assert found.sources["spec"]["nfe"] == 2 and found.sources["backbone"] == "tiny-dit"
    for row, prompt in enumerate(found.prompts):
        for k, candidate in enumerate(prompt.candidates):
            info = probe(found.video(row, k))
            assert (info.width, info.height, info.frames, info.audio_rate) == (16, 16, 5, 16000)
            assert read_audio(found.video(row, k)) is not None
            assert candidate.noise.name == f"{prompt.clip}#candidate{k}" and set(candidate.scores) == {
                "motion", "fidelity"
            }


def test_the_same_command_again_samples_nothing_and_makes_what_is_missing(runs: Runs, session: Path) -> None:
    cached = {p: p.stat().st_mtime_ns for p in (runs.folder / "cache").rglob("*.safetensors")}
    found = read_session(session)
    kept, gone = found.video(0, 0), found.video(3, 1)
    before, content = kept.stat().st_mtime_ns, gone.read_bytes()
    gone.unlink()
    assert sample(runs, session)[0] == 0
    assert kept.stat().st_mtime_ns == before and gone.read_bytes() == content
    assert {p: p.stat().st_mtime_ns for p in (runs.folder / "cache").rglob("*.safetensors")} == cached
    for options, said in ((("--seed", "1"), "holds a session with other candidates"),
                          (("--criteria", "hands"), "holds a session with other criteria (motion")):  # fmt: skip
        code, _, told = sample(runs, session, *options)
        assert code == 2 and said in told


def test_from_answers_to_records_that_name_the_file(runs: Runs, session: Path, tmp_path: Path) -> None:
    for annotator, flip in (("kim", 0), ("lee", 0), ("max", 2)):
        judge(session, annotator, flip)
    labels = tmp_path / "labels.jsonl"
    code, said, _ = runs.finish(runs.command("prefs", "export", str(session), "--out", str(labels)))
    assert (code, said) == (0, f"{labels}: 6 pairs\n")
    lines = [json.loads(line) for line in labels.read_text().splitlines()]
    scores = {p.clip: [c.scores for c in p.candidates] for p in read_session(session).prompts}
    for line in lines:
        assert (tmp_path / line["session"]).resolve() == session.resolve()
        assert line["labels"] == {
            name: "left" if scores[line["clip"]][0][name] > scores[line["clip"]][1][name] else "right"
            for name in ("motion", "fidelity")
        }
    code, said, _ = runs.finish(runs.command("prefs", "agreement", str(session), "--json"))
    found = json.loads(said)["agreement"]
    assert json.loads(said)["side_one"].keys() == {"kim", "lee", "max"}
    assert code == 0 and [(one["criterion"], one["statistic"]) for one in found] == [
        ("motion", "fleiss"), ("motion", "cohen"), ("fidelity", "fleiss"), ("fidelity", "cohen")
    ]
    assert found[0]["pairs"] == 6 and found[0]["observed"] == pytest.approx(1 - 2 / 6 * 2 / 3)
    assert found[0]["ci"][0] <= found[0]["kappa"] <= found[0]["ci"][1]
    assert found[1]["observed"] == 1 and found[1]["between"] == ["majority", "automatic scores"]
    out = tmp_path / "out"
    methods = "--methods", "tpo,ipa,diffusion-dpo,kto", "--preferences", str(labels)
    code, _, told = runs(out, *methods)
    assert code == 0, told
    record = read_record(out / "records" / "diffusion-dpo-s0.json")
    sha256 = hashlib.sha256(labels.read_bytes()).hexdigest()
    assert {read_record(path).protocol["preferences"]["file_sha256"] for path in (out / "records").glob("*.json")} == {
        sha256
    }
    assert record.provenance["preferences"]["name"] == "labels.jsonl"
    assert f"trained on the labels of people in the file with sha256 {sha256}" in (out / "leaderboard.md").read_text()
    assert record.provenance["preferences"]["criteria"]["motion"] == {"pairs": 4, "heldout_pairs": 2, "winners": 4}
    assert "implicit_accuracy@motion" in record.metrics
    stamp = (out / "records" / "tpo-s0.json").stat().st_mtime_ns
    code, _, told = runs(out, *methods)
    assert code == 0 and "6 of 6 cells are done already" in told
    assert (out / "records" / "tpo-s0.json").stat().st_mtime_ns == stamp
    other = tmp_path / "other.jsonl"
    code, _, told = runs.finish(runs.command("prefs", "export", str(session), "--out", str(other), "--videos"))
    assert code == 0, told
    again = "--methods", "diffusion-dpo", "--preferences", str(other)
    code, _, told = runs(out, *again)
    assert code == 2 and "another protocol (preferences.contents_sha256" in told
    assert runs(tmp_path / "out2", *again)[0] == 0
    both = str(out), str(tmp_path / "out2")
    code, said, told = runs.finish(runs.command("leaderboard", *both))
    assert code == 2 and "cannot share a table: preferences.contents_sha256" in told and said == ""


def test_files_of_others_train_too_and_one_at_fault_is_refused_whole(runs: Runs, tmp_path: Path) -> None:
    labels, out = labelled(tmp_path), tmp_path / "out"
    code, _, told = runs(out, "--methods", "diffusion-dpo[criterion=motion]", "--preferences", str(labels))
    assert code == 0, told
    text = labels.read_text()
    for wrong, said in (
        (text.replace('"tie"', '"ty"', 1), 'line 1, labels.fidelity: "ty" is no label'),
        (text.replace("tiny/prompts/003", "tiny/prompts/303"), "line 4, clip: tiny/prompts/303 is no training clip"),
        (text.replace("2-0.mp4", "none.mp4"), "line 3, left: videos/none.mp4 does not exist"),
    ):
        labels.write_text(wrong)
        code, out_said, told = runs(tmp_path / "other", "--methods", "diffusion-dpo", "--preferences", str(labels))
        assert code == 2 and said in told and out_said == ""
        left = {p.name for p in (tmp_path / "other").iterdir()} - {".lock"} if (tmp_path / "other").exists() else set()
        assert left == set()  # nothing of a file at fault was used
    labels.write_text(text)
    code, _, told = runs(tmp_path / "other", "--methods", "flow-grpo", "--preferences", str(labels))
    assert code == 2 and "flow-grpo learns from scores of its own fresh samples" in told


def test_ties_and_videos_in_an_export(runs: Runs, session: Path, tmp_path: Path) -> None:
    from shutil import copytree, rmtree

    from halign_bench.prefs.export import export

    copy = Path(copytree(session, tmp_path / "copy"))
    rmtree(copy / "answers", ignore_errors=True)
    judge(copy, "kim")
    judge(copy, "lee", flip=2)
    path, count = export(copy, tmp_path / "a.jsonl", ties=True, videos=True)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert count == 6 and [line["labels"]["motion"] for line in lines[:2]] == ["tie", "tie"]
    assert all((tmp_path / line[side]).is_file() for line in lines for side in ("left", "right"))
    assert export(copy, tmp_path / "b.jsonl", ties=False, videos=False)[1] == 4
    answers_path(copy, "kim").unlink()
    answers_path(copy, "lee").unlink()
    code, _, told = runs.finish(runs.command("prefs", "export", str(copy)))
    assert code == 2 and "has no answers yet" in told
    code, _, told = runs.finish(runs.command("prefs", "agreement", str(copy)))
    assert code == 2 and "has no answers yet" in told


def documented(number: int) -> str:
    """A Python program of the page on preferences."""
    page = (Path(__file__).parent.parent / "docs" / "preferences.md").read_text(encoding="utf-8")
    return page.split("```python\n")[number].split("```")[0]


def test_the_documented_step_from_label_studios_json_makes_a_preference_file(tmp_path: Path) -> None:
    (tmp_path / "convert.py").write_text(documented(1))

    def result(name: str, kind: str, **value: object) -> dict[str, object]:
        return {"id": "a1", "from_name": name, "to_name": "v1,v2", "type": kind, "origin": "manual", "value": value}

    def annotation(who: int, *results: dict[str, object], cancelled: bool = False) -> dict[str, object]:
        return {"id": who, "completed_by": who, "result": results, "was_cancelled": cancelled, "lead_time": 4.2}

    data = {"clip": "tiny/prompts/000", "left": "a.mp4", "right": "b.mp4", "left_url": "/data/local-files/?d=a.mp4"}
    export = [
        {"id": 1, "data": data, "project": 1, "annotations": [
            annotation(7, result("motion", "pairwise", selected="right"),
                       result("fidelity", "choices", choices=["tie"])),
            annotation(8), annotation(9, result("motion", "pairwise", selected="left"), cancelled=True),
        ]},
        {"id": 2, "data": {**data, "clip": "tiny/prompts/001"}, "annotations": [
            annotation(7, result("motion", "choices", choices=["left"])),
        ]},
    ]  # fmt: skip
    (tmp_path / "export.json").write_text(json.dumps(export))
    command = [sys.executable, "convert.py", "export.json"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    lines = [line for _, line in parse(tmp_path / "labels.jsonl", made)]
    assert [(line.clip, line.labels, line.annotator) for line in lines] == [
        ("tiny/prompts/000", {"motion": "right", "fidelity": "tie"}, "7"), ("tiny/prompts/001", {"motion": "left"}, "7")
    ]


def test_the_documented_step_from_label_studios_csv_makes_a_preference_file(tmp_path: Path) -> None:
    (tmp_path / "convert.py").write_text(documented(2))
    (tmp_path / "export.csv").write_text(
        "clip,left,right,left_url,id,motion,hands,annotator,annotation_id,created_at,updated_at,lead_time\n"
        "tiny/prompts/000,a.mp4,b.mp4,/data/local-files/?d=a.mp4,1,left,tie,7,1,2024-03-29,2024-03-29,4.2\n"
        "tiny/prompts/001,a.mp4,b.mp4,/data/local-files/?d=a.mp4,2,right,,7,2,2024-03-29,2024-03-29,4.2\n"
    )
    command = [sys.executable, "convert.py", "export.csv", "labels.csv", "motion", "hands"]
    subprocess.run(command, cwd=tmp_path, check=True)
    lines = [line for _, line in parse(tmp_path / "labels.csv", (tmp_path / "labels.csv").read_bytes())]
    assert [(line.clip, line.labels, line.annotator) for line in lines] == [
        ("tiny/prompts/000", {"motion": "left", "hands": "tie"}, "7"), ("tiny/prompts/001", {"motion": "right"}, "7")
    ]


@pytest.mark.parametrize("number", range(4))
def test_the_documented_lines_are_lines(number: int) -> None:
    page = (Path(__file__).parent.parent / "docs" / "preferences.md").read_text(encoding="utf-8")
    line = page.split("```json\n")[1].split("```")[0].splitlines()[number]
    assert parse(Path("labels.jsonl"), line.encode())


def halign(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "halign_bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=cwd)


@pytest.mark.slow
def test_a_session_on_the_puppet_trains_in_the_smoke_profile(tmp_path: Path) -> None:
    numbers = "--prompts", "16", "--candidates", "2", "--nfe", "6"  # the smoke profile's
    assert halign("prefs", "sample", "--out", "session", *numbers, cwd=tmp_path).returncode == 0
    judge(tmp_path / "session", "kim")
    assert halign("prefs", "export", "session", "--out", "labels.jsonl", cwd=tmp_path).returncode == 0
    done = halign("run", "--methods", "diffusion-dpo,kto", "--profile", "smoke", "--preferences", "labels.jsonl",
                  "--out", "out", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "out" / "records" / "diffusion-dpo-s0.json")
    assert record.status == "done" and record.provenance["preferences"]["prompts"] == 16


@pytest.mark.slow
def test_labels_on_real_videos_train_on_the_clips_track(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, seed in (("a", 1), ("b", 2), ("c", 3), ("d", 4)):
        sound = media_files.tone(2.4, 44_100)
        media_files.write(folder / f"{name}.mp4", media_files.textured(60, 64, 64, seed), sound=sound)
    lines = []
    for number, clip in enumerate(("a@00001", "a@00018", "c@00001", "d@00001")):
        names = []
        for side in (0, 1):
            names.append(f"made-{number}-{side}.mp4")
            media_files.write(tmp_path / names[-1], media_files.textured(17, 64, 64, 10 + 2 * number + side))
        lines.append(pair(clip, *names))
    labels = jsonl(tmp_path / "labels.jsonl", *lines)
    done = halign("run", "--track", "clips", "--data", str(folder), "--methods", "diffusion-dpo", "--profile", "smoke",
                  "--preferences", str(labels), "--out", "out", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert read_record(tmp_path / "out" / "records" / "diffusion-dpo-s0.json").status == "done"
