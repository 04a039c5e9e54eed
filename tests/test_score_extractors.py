"""`halign-bench score` with extractors, on random weights: the features are the classes' own, found once, and kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from halign_bench.metrics.csim import cosine_similarity
from halign_bench.metrics.hkc import hand_confidence
from media_files import textured, tone, write
from score_assets import fill

from halign_bench.cli import main
from halign_bench.extractors.arcface import ArcFace
from halign_bench.extractors.wholebody import DWPose
from halign_bench.media import read_video
from halign_bench.scoring import scorer
from halign_bench.track import Clip

for _package in ("onnx", "onnxruntime", "insightface", "cv2"):
    pytest.importorskip(_package, reason=f'needs {_package}: pip install "halign-bench[score]"')

FRAMES = 4
SMALL = ("yolox-l", "dwpose-l", "insightface-buffalo-l", "lpips-alex", "alexnet")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What is trusted is remembered in the cache folder, so all tests here share one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield fill(tmp_path_factory.mktemp("assets"), SMALL)


def score(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any], str]:
    capsys.readouterr()
    code = main(["score", *map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else {}, err


def person(*places: tuple[int, int], green: int = 0, frames: int = FRAMES) -> np.ndarray:
    """Black, with a red square for each place (left, top): the nets of these tests take it for a person and a face."""
    video = np.zeros((frames, 320, 320, 3), np.uint8)
    for left, top in places:
        video[:, top : top + 32, left : left + 32] = (250, green, 0)
    return video


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    generated, real = tmp_path / "generated", tmp_path / "real"
    generated.mkdir(), real.mkdir()
    for folder, shade in ((generated, 60), (real, 0)):
        write(folder / "one.mp4", person((96, 96), green=shade))
        write(folder / "two faces.mp4", person((96, 96), (224, 160), green=shade))
        write(folder / "no face.mp4", textured(FRAMES, 320, 320) // 8)
    return generated, real


def test_scores_are_those_of_the_classes_on_the_same_clips(capsys, weights, folders):
    generated, real = folders
    code, found, _ = score(capsys, generated, "--reference", real, "--assets", weights)
    assert code == 0
    ours, theirs = (read_video(folder / "one.mp4").frames for folder in folders)
    clip, condition = Clip("one", "one", ours, theirs[0]), Clip("one", "one", theirs, theirs[0])
    hands = DWPose(weights / "yolox_l.onnx", weights / "dw-ll_ucoco_384.onnx")([clip], [condition])[0]
    identity = ArcFace(weights / "buffalo_l")([clip], [condition])[0]
    rows = pq.read_table("scores/latest/clips.parquet").to_pylist()
    value = {row["metric"]: row["value"] for row in rows if row["clip"] == "one"}
    assert value["hkc@dwpose"] == pytest.approx(hand_confidence(hands["confidence"], hands["expected"]))
    assert value["csim@arcface"] == pytest.approx(cosine_similarity(identity["embedding"], identity["reference"]))
    assert found["metrics"]["csim@arcface"]["failed"] == {"no face found in the reference picture": 1}
    assert sum(found["metrics"]["hkc@dwpose"]["failed"].values()) == 1
    assert found["metrics"]["lpips@alex"]["n"] == 3
    assert "sha256" in found["metrics"]["hkc@dwpose"]["protocol"]
    assert {"fid", "kid", "fvd", "sync_c", "sync_d", "sync_offset"} <= set(found["left_out"])


def test_features_are_found_once_and_a_further_metric_needs_no_more_than_its_own(
    capsys, weights, folders, monkeypatch, tmp_path
):
    generated, real = folders
    monkeypatch.setenv("HALIGN_ASSETS", str(weights))
    calls: list[str] = []
    asked = scorer.LazyExtractor.__call__

    def watched(self: Any, *arguments: Any) -> Any:
        calls.append(self.choice.name)
        return asked(self, *arguments)

    monkeypatch.setattr(scorer.LazyExtractor, "__call__", watched)
    for clip in generated.iterdir():  # contents that no other test has scored
        write(clip, np.roll(read_video(clip).frames, 8, axis=2))
    score(capsys, generated, "--reference", real, "--metrics", "hkc,hkv,hkc_coverage")
    assert calls == ["dwpose"] * 3
    calls.clear()
    score(capsys, generated, "--reference", real, "--metrics", "hkc,hkv,hkc_coverage,csim")
    assert calls == ["arcface"] * 3
    calls.clear()
    score(capsys, generated, "--reference", real, "--metrics", "ssim_hand,hkc,csim")
    assert set(calls) <= {"dwpose"} and len(calls) <= 3  # the real clips' hands, if they were not known


def test_alone_hands_are_expected_where_the_clip_shows_a_wrist(capsys, weights, folders):
    code, found, _ = score(capsys, folders[0], "--assets", weights)
    assert code == 0
    assert found["metrics"]["hkc@dwpose"]["n"] == 2
    assert found["metrics"]["csim@arcface"]["failed"] == {"no reference": 3}
    assert "--reference is not given" in found["left_out"]["lpips"]


def test_identity_is_compared_with_the_picture_that_is_given(capsys, weights, folders, tmp_path):
    from PIL import Image

    generated, _ = folders
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(read_video(generated / "one.mp4").frames[0]).save(pictures / "one.png")
    (pictures / "two faces.png").write_text("no picture")
    _, found, _ = score(capsys, generated, "--images", pictures, "--assets", weights, "--metrics", "csim")
    csim = found["metrics"]["csim@arcface"]
    assert csim["n"] == 1 and csim["value"] == pytest.approx(1, abs=1e-3)
    assert any(reason.startswith("image is no picture that can be read") for reason in csim["failed"])


def test_a_clip_that_breaks_an_extractor_is_counted_named_and_tried_again(capsys, weights, folders, monkeypatch):
    generated, real = folders
    for clip in generated.iterdir():
        write(clip, np.roll(read_video(clip).frames, 16, axis=2))
    features = ArcFace.features

    def broken(self: ArcFace, clip: Clip, condition: Clip) -> Any:
        if clip.id == "one":
            raise ValueError("cannot cope")
        return features(self, clip, condition)

    arguments = (generated, "--reference", real, "--assets", weights, "--metrics", "csim,psnr")
    with monkeypatch.context() as patch:
        patch.setattr(ArcFace, "features", broken)
        code, found, err = score(capsys, *arguments)
    assert code == 0 and "one: arcface failed: ValueError: cannot cope" in err
    assert found["metrics"]["csim@arcface"]["failed"]["arcface failed: ValueError: cannot cope"] == 1
    assert found["metrics"]["psnr@pixels"]["n"] == 3
    _, found, _ = score(capsys, *arguments)
    assert found["metrics"]["csim@arcface"]["n"] == 2


def test_weights_that_are_not_trusted_are_not_opened(capsys, weights, folders, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "i3d_torchscript.pt").write_bytes(b"code")
    _, found, _ = score(capsys, folders[0], "--reference", folders[1], "--assets", other, "--metrics", "fvd,psnr")
    assert "i3d-torchscript" in found["left_out"]["fvd"] and "assets" in found["left_out"]["fvd"]
    assert set(found["metrics"]) == {"psnr@pixels"}


@pytest.mark.slow
def test_the_nets_of_full_size(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HALIGN_CACHE", str(tmp_path / "cache"))
    assets = fill(tmp_path / "assets")
    for folder, seed in (("generated", 0), ("real", 10)):
        (tmp_path / folder).mkdir()
        for number in range(2):
            write(tmp_path / folder / f"{number}.mp4", textured(20, 96, 96, seed + number), sound=tone(0.8, 44_100))
    code, found, _ = score(capsys, tmp_path / "generated", "--reference", tmp_path / "real", "--assets", assets)
    assert code == 0 and not found["left_out"]
    for key in ("fid@inception", "kid@inception", "fvd@i3d"):
        assert found["metrics"][key]["n"] == 2 and found["metrics"][key]["value"] is not None
    assert sum(found["metrics"]["sync_c@syncnet"]["failed"].values()) == 2
