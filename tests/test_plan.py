"""What follows from a request before any model is loaded: variants, cells, labels, protocol, time left."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from halign_bench import folder, progress
from halign_bench.errors import Interrupted, RequestError
from halign_bench.plan import RunRequest, plan
from halign_bench.progress import Progress, Stop, duration
from halign_bench.protocol import PROFILES, Protocol, profile_named, sha256_of


def labels(*methods: str, **options: object) -> list[str]:
    return [variant.label for variant in plan(RunRequest(methods, **options)).variants]  # type: ignore[arg-type]


def test_base_and_sft_are_always_there_and_duplicates_are_one() -> None:
    assert labels("diffusion-dpo") == ["base", "sft", "diffusion-dpo"]
    assert labels("diffusion-dpo,sft", "base") == ["base", "sft", "diffusion-dpo"]
    assert labels("ipa,ipa[beta=600]") == ["base", "sft", "ipa"]


def test_numbers_that_differ_from_the_defaults_show_in_the_label() -> None:
    assert labels("diffusion-dpo[beta=500.0]")[2:] == ["diffusion-dpo[beta=500]"]
    assert labels("diffusion-dpo", overrides=["diffusion-dpo.beta=7"])[2:] == ["diffusion-dpo[beta=7]"]
    # Brackets win over --set.
    assert labels("diffusion-dpo[beta=8]", overrides=["diffusion-dpo.beta=7"])[2:] == ["diffusion-dpo[beta=8]"]
    assert labels("sft[data=clips]")[1:] == ["sft", "sft[data=clips]"]


def test_cells_have_distinct_file_names() -> None:
    steps = plan(RunRequest(["diffusion-dpo[beta=500],diffusion-dpo[beta=50.0],sft+diffusion-dpo"], seeds=(0, 3)))
    names = [cell.name for cell in steps.cells]
    assert len(set(names)) == len(names) == 2 * 5
    assert {"base-s0", "sft-s3", "sft+diffusion-dpo-s0"} <= set(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789+-_") for name in names)


def test_what_is_part_of_a_cell() -> None:
    (_, _, dpo), (_, _, other), (_, _, elsewhere) = (
        plan(RunRequest([text], out=Path(out), device=device)).cells
        for text, out, device in (
            ("diffusion-dpo", "a", "auto"), ("diffusion-dpo[beta=1]", "a", "auto"), ("diffusion-dpo", "b", "cpu"),
        )
    )  # fmt: skip
    assert dpo.sha256("a") != other.sha256("a") and dpo.sha256("a") != dpo.sha256("b")
    assert dpo.sha256("a") == elsewhere.sha256("a")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"methods": ["sft"], "overrides": ["sft"]}, "method.key=value"),
        ({"methods": ["sft"], "overrides": ["stf.data=clips"]}, "did you mean sft"),
        ({"methods": ["sft"], "seeds": []}, "--seeds"),
        ({"methods": []}, "names no method"),
        ({"methods": ["sft+sft"]}, "both train adapter"),
        ({"methods": ["sft"], "track": "puppet", "data": Path("x")}, "makes its own clips"),
        ({"methods": ["sft"], "nfe": (0,)}, "--nfe 0"),
        ({"methods": ["sft"], "profile": "big"}, "smoke, default, paper"),
    ],
)
def test_requests_that_cannot_be_answered(options: dict, sentence: str) -> None:
    with pytest.raises(RequestError) as refused:
        plan(RunRequest(**options))
    assert sentence in str(refused.value)


def test_a_plan_does_not_import_torch() -> None:
    code = (
        "import sys; from halign_bench.plan import RunRequest, plan; import halign_bench.runner\n"
        "plan(RunRequest(['diffusion-dpo,sft'])); sys.exit(any(m in sys.modules for m in ('torch', 'scipy', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_grid_replaces_the_profile_s() -> None:
    assert profile_named("default", (50, 10, 50)).nfe == (50, 10)
    assert profile_named("default").nfe == PROFILES["default"].nfe


def protocol(**changes: object) -> Protocol:
    kept = {
        "profile": "smoke", "track": {"name": "t"}, "backbone": {"name": "b", "base_sha256": "0"},
        "preferences": {}, "training": {"samples": 3}, "evaluation": {"nfe": [4, 2]}, "metrics": {"fid@t": "x"},
    }  # fmt: skip
    return Protocol.model_validate(kept | changes)


def test_protocol_hash_and_differences() -> None:
    one, same = protocol(track={"name": "t", "a": 1}), protocol(track={"a": 1, "name": "t"})
    assert one.sha256 == same.sha256 and not one.differences(same.model_dump(mode="json"))
    other = protocol(track={"name": "t"}, training={"samples": 4})
    assert one.sha256 != other.sha256
    assert other.differences(one.model_dump(mode="json")) == [
        "track.a: absent now, 1 there", "training.samples: 4 now, 3 there"
    ]  # fmt: skip


@given(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=5), st.randoms())
def test_hashes_do_not_depend_on_the_order_of_keys(value: dict, chance: object) -> None:
    items = list(value.items())
    chance.shuffle(items)  # type: ignore[attr-defined]
    assert sha256_of(value) == sha256_of(dict(items))


def test_durations() -> None:
    said = [duration(seconds) for seconds in (0.4, 59.4, 59.6, 185, 7800)]
    assert said == ["0 s", "59 s", "1 min 00 s", "3 min 05 s", "2 h 10 min"]


def test_time_left_counts_only_what_was_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = io.StringIO()
    report = Progress(Console(file=shown), plan=300.0)
    with report.phase("one", 10, weight=100.0) as phase:
        phase(6, 10)  # found done: no speed follows from it
        assert phase.seconds_left() is None and report.seconds_left(phase) is None
        now[0] = 20.0
        phase(8, 10)
        assert phase.seconds_left() == pytest.approx(20.0)  # 2 steps in 20 s, 2 left
        assert report.seconds_left(phase) == pytest.approx((300 - 80) * 20.0 / 20)  # 20 units in 20 s, 220 left
        phase(10, 10)
    with report.phase("two", 4, weight=200.0) as phase:
        assert report.seconds_left(phase) == pytest.approx(200 * 20.0 / 40)  # 40 units in 20 s
    said = shown.getvalue()
    assert "one: 8/10, 20 s left, 3 min 40 s in all" in said and "one: done in 20 s" in said


def test_the_first_ctrl_c_is_answered_at_a_safe_point_and_the_second_at_once() -> None:
    report = Progress(Console(file=io.StringIO()), stop := Stop())
    before = signal.getsignal(signal.SIGINT)
    with stop.listening(), report.phase("work", 3) as phase:
        with pytest.raises(KeyboardInterrupt):  # nothing to keep yet
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                pass
        stop.gentle = True
        phase.advance()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            phase.advance()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                pass
    assert signal.getsignal(signal.SIGINT) is before


def test_clearing_a_cell_leaves_what_is_not_ours(tmp_path: Path) -> None:
    adapter = "train/0-sft/adapters/sft/pytorch_lora_weights.safetensors"
    insert = [f"train/0-tmm/adapters/tmm-audio/insert.{kind}" for kind in ("safetensors", "json")]
    ours = ["train/0-sft/train.jsonl", adapter, "eval/nfe4-00000.npz", *insert]
    theirs = ["train/notes.txt", "eval/mine.npz"]
    for name in ours + theirs:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    folder.clear_cell(tmp_path, "train")
    assert not (tmp_path / ours[0]).exists() and (tmp_path / ours[2]).exists()
    folder.clear_cell(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(theirs)
    assert not (tmp_path / "train" / "0-sft").exists()
