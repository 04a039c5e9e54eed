"""Identity by insightface, on small nets in the layout of buffalo_l."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from halign_bench.errors import RequestError
from halign_bench.extractors.arcface import BATCH, ArcFace
from halign_bench.media import read_video
from halign_bench.metric import Scored
from halign_bench.registry import get
from halign_bench.track import Clip, Unscorable

for _package in ("onnx", "onnxruntime", "insightface"):
    pytest.importorskip(_package, reason=f'needs {_package}: pip install "halign-bench[score]"')
files = pytest.importorskip("onnx_files")


@pytest.fixture(scope="module")
def arcface(tmp_path_factory: pytest.TempPathFactory) -> ArcFace:
    return ArcFace(files.buffalo_l(tmp_path_factory.mktemp("buffalo_l")))


def frame(*squares: tuple[int, int, int]) -> np.ndarray:
    """Black, with red squares at (left, top) whose green says who they are."""
    picture = np.zeros((320, 320, 3), np.uint8)
    for left, top, green in squares:
        picture[top : top + 16, left : left + 16] = (250, green, 0)
    return picture


def clip(video: list[np.ndarray], reference: np.ndarray, name: str = "a") -> Clip:
    return Clip(name, name, np.stack(video), reference)


ANNA, BERT = frame((96, 96, 0)), frame((96, 96, 120))


def similarity(extractor: ArcFace, one: Clip, target: Clip):
    metric = get("metric", "csim")(extractor)
    ours, theirs = extractor([one, target], [target, target])
    metric.update(Scored(one, target, ours, theirs))
    return metric.compute(), metric.failures()


def test_features_have_the_stated_form(arcface):
    one = clip([ANNA, ANNA * 0, BERT], ANNA)
    (found,) = arcface([one], [one])
    assert found["embedding"].shape == (2, 512) and found["reference"].shape == (512,)
    assert found["found"].tolist() == [True, False, True]


def test_embeddings_are_those_of_face_analysis(arcface):
    pictures = [ANNA, BERT, frame((160, 64, 60))]
    embeddings, found = arcface.embeddings(np.stack(pictures))
    assert found.all()
    for ours, picture in zip(embeddings, pictures, strict=True):
        (face,) = arcface.analysis.get(np.ascontiguousarray(picture[..., ::-1]))
        np.testing.assert_allclose(ours, face.embedding, rtol=1e-4, atol=1e-4)


def test_the_same_face_is_more_similar_than_another(arcface):
    real = clip([ANNA, ANNA], ANNA)
    same, _ = similarity(arcface, clip([ANNA, ANNA], ANNA), real)
    other, _ = similarity(arcface, clip([BERT, BERT], ANNA), real)
    assert same == pytest.approx(1.0, abs=1e-5) and other < same - 1e-4


def test_the_largest_face_counts(arcface, monkeypatch):
    boxes = np.array([[0, 0, 20, 20, 0.9], [100, 100, 180, 190, 0.6], [0, 0, 30, 30, 0.95]], np.float32)
    points = np.stack([np.float32([[5, 5], [15, 5], [10, 10], [6, 15], [14, 15]]) * (k + 1) for k in range(3)])
    monkeypatch.setattr(arcface.analysis.det_model, "detect", lambda picture: (boxes, points))
    asked = []
    monkeypatch.setattr(arcface._align, "norm_crop", lambda picture, landmark, image_size: asked.append(landmark))
    arcface._face(ANNA)
    np.testing.assert_array_equal(asked, points[1:2])


def test_clips_longer_than_a_batch_lose_no_frame(arcface):
    video = [ANNA, ANNA * 0, BERT] * (BATCH // 2)
    embeddings, found = arcface.embeddings(np.stack(video))
    assert found.tolist() == [True, False, True] * (BATCH // 2) and len(embeddings) == found.sum()
    np.testing.assert_allclose(embeddings[::2], np.tile(embeddings[0], (BATCH // 2, 1)), rtol=1e-5, atol=1e-5)


def test_a_clip_without_faces_is_a_reason_and_not_a_score(arcface):
    real, empty = clip([ANNA], ANNA), clip([ANNA * 0] * 3, ANNA)
    assert arcface([empty], [real]) == [Unscorable("no face found in 3 frames")]
    blank = replace(real, reference=ANNA * 0)
    assert arcface([real], [blank]) == [Unscorable("no face found in the reference picture")]
    assert similarity(arcface, empty, real) == (None, {"no face found in 3 frames": 1})


def test_the_protocol_names_what_was_used(arcface):
    assert arcface.protocol.count("sha256") == 2 and "largest" in arcface.protocol
    for part in ("insightface ", "det_10g.onnx", "w600k_r50.onnx", "(640, 640)"):
        assert part in arcface.protocol


def test_folders_that_are_something_else_say_so(tmp_path):
    with pytest.raises(RequestError, match=r"it has no det_10g\.onnx"):
        ArcFace(tmp_path)
    for name in ("det_10g.onnx", "w600k_r50.onnx"):
        (tmp_path / name).write_text("not a net")
    with pytest.raises(RequestError, match="insightface cannot use the models in"):
        ArcFace(tmp_path)


def test_nothing_is_printed_on_standard_output(tmp_path, capsys):
    ArcFace(files.buffalo_l(tmp_path / "buffalo_l"))
    assert capsys.readouterr().out == ""


# A real clip. The nets are random: this shows that the machinery works on real frames, and nothing about their quality.


def test_a_real_clip_goes_through(tmp_path, real_clip):
    path = real_clip("portrait_guitar_5s.avi")
    video = read_video(path, frames=3).frames
    extractor = ArcFace(files.buffalo_l(tmp_path / "buffalo_l", seed=1))
    one = Clip(path.name, path.name, video, video[0])
    (found,) = extractor([one], [one])
    assert found["found"].all() and found["embedding"].shape == (3, 512)
    assert np.isfinite(found["embedding"]).all() and found["embedding"].std() > 0
    value, failures = similarity(extractor, one, one)
    assert -1 <= value <= 1 and failures == {}
