"""What executors refuse, without any cluster."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from media_files import textured, write

from halign_bench.cli import main
from halign_bench.errors import RequestError
from halign_bench.executors.choice import Where
from halign_bench.folder import RunFolder
from halign_bench.scoring.choices import code_sha256
from halign_bench.scoring.opening import ScoreRequest, open_scoring
from halign_bench.scoring.shards import Sender

RUN = ("run", "--methods", "sft")


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize("command", [RUN, ("score", ".")])
def test_without_ray_one_sentence_says_how_to_get_it(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    assert main([*command, "--executor", "ray"]) == 2
    said = capsys.readouterr().err
    assert said == 'halign-bench: --executor ray needs the package ray: python -m pip install "halign-bench[ray]"\n'


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--task-gpus", "1.5"), "--task-gpus 1.5: Ray gives out whole ones and parts of one"),
        (("--task-cpus", "-1"), "--task-cpus -1: Ray gives out"),
        (("--device", "cuda:1"), "--device cuda:1: a worker of Ray sees only the GPU that it was given"),
        (("--ray-address", "nonsense"), "--ray-address nonsense: no Ray cluster that can be used (Invalid address"),
        (("--ray-address", f"127.0.0.1:{closed_port()}"), "no Ray cluster answers there ("),
    ],
)
def test_what_ray_cannot_do_is_one_sentence(
    options: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="the package ray is not installed")
    assert main([*RUN, "--out", str(tmp_path / "out"), "--executor", "ray", *options]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_a_worker_that_sees_another_folder_says_so(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out")
    with folder.locked():
        RunFolder(tmp_path / "out").join()
    with pytest.raises(RequestError, match=r"--out .*elsewhere: a worker sees another folder of this name, or none"):
        RunFolder(tmp_path / "elsewhere").join()


def test_a_worker_that_would_fill_another_cache_or_otherwise_refuses(tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.mp4", textured(3))
    request = ScoreRequest(clip, clip, None, None, ("ssim",), (), None, None, "cpu", tmp_path / "cache")
    scoring = open_scoring(request)
    (mark := tmp_path / "mark").touch()
    sender = Sender(mark, {}, code_sha256())
    sender.check(scoring)
    for other, sentence in (
        (replace(sender, mark=tmp_path / "none"), "a worker sees another cache folder of this name"),
        (replace(sender, code="0"), "a worker has another version of halign-bench"),
    ):
        with pytest.raises(RequestError, match=sentence):
            other.check(scoring)
    lacking = open_scoring(replace(request, metrics=("ssim", "fid"), assets=tmp_path))
    with pytest.raises(RequestError, match="a worker cannot extract image features: no weights here"):
        replace(sender, extractors={"image": "0"}).check(lacking)


def test_on_this_machine_alone_nothing_of_ray_is_asked() -> None:
    Where().check("cuda:1")
    with pytest.raises(RequestError, match="--task-cpus 2: is for --executor ray"):
        Where(task_cpus=2).check()
