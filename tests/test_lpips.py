"""LPIPS on random backbones in torchvision's layout, against the formula written out, with the published weights."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from halign_bench.errors import RequestError
from halign_bench.extractors.lpips import LPIPSVGG, LPIPSAlex
from halign_bench.metric import Scored
from halign_bench.registry import get
from halign_bench.track import Clip, Unscorable

# torchmetrics brings the published files with it. It is not imported: that fails beside a torchvision of another build.
LINEAR = Path(str(find_spec("torchmetrics").origin)).parent / "functional" / "image" / "lpips_models"

# Of torchvision's `features`: (number of the convolution, output and input channels, kernel side).
ALEX = ((0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3))
VGG = (
    (0, 64, 3, 3), (2, 64, 64, 3), (5, 128, 64, 3), (7, 128, 128, 3), (10, 256, 128, 3), (12, 256, 256, 3),
    (14, 256, 256, 3), (17, 512, 256, 3), (19, 512, 512, 3), (21, 512, 512, 3), (24, 512, 512, 3),
    (26, 512, 512, 3), (28, 512, 512, 3),
)  # fmt: skip


def backbone(path: Path, layout: tuple, seed: int = 0) -> Path:
    """Random weights under torchvision's names, with a (small) classifier, which LPIPS has no use for."""
    generator = torch.Generator().manual_seed(seed)
    state = {"classifier.6.weight": torch.zeros(4, 4), "classifier.6.bias": torch.zeros(4)}
    for number, out, given, side in layout:
        scale = (2 / (given * side * side)) ** 0.5
        state[f"features.{number}.weight"] = torch.randn(out, given, side, side, generator=generator) * scale
        state[f"features.{number}.bias"] = torch.randn(out, generator=generator) * 0.1
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return backbone(tmp_path_factory.mktemp("alex") / "alexnet-owt-7be5be79.pth", ALEX)


@pytest.fixture(scope="module")
def alex(alexnet: Path) -> LPIPSAlex:
    return LPIPSAlex(LINEAR / "alex.pth", alexnet)


def videos(frames: int = 3, height: int = 40, width: int = 48, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 256, (frames, height, width, 3), np.uint8)
    return video, np.clip(video + rng.normal(0, 40, video.shape), 0, 255).astype(np.uint8)


def clip(video: np.ndarray) -> Clip:
    return Clip("a", "a", video, video[0])


def written_out(layout: tuple, weights: Path, linear: Path, x: np.ndarray, y: np.ndarray) -> list[float]:
    """The published formula, one frame and one layer at a time, in double precision."""
    state, lins = (torch.load(path, "cpu", weights_only=True) for path in (weights, linear))
    alexnet = layout is ALEX
    # A layer is compared behind its ReLU: all of AlexNet's, and the last of each of VGG's stages.
    last = {number for (number, *_), after in zip(layout, (*layout[1:], (99,)), strict=True) if after[0] - number > 2}
    compared = {number for number, *_ in layout} if alexnet else last
    pooled = {0, 3} if alexnet else last - {layout[-1][0]}
    scores = []
    for pair in zip(x, y, strict=True):
        features = []
        for frame in pair:
            h = torch.from_numpy(frame).double().permute(2, 0, 1)[None] / 127.5 - 1
            shift, scale = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]]).double().view(2, 1, 3, 1, 1)
            h, outputs = (h - shift) / scale, []
            for number, _, _, side in layout:
                stride, padding = (4, 2) if side == 11 else (1, side // 2)
                weight, bias = (state[f"features.{number}.{part}"].double() for part in ("weight", "bias"))
                h = F.conv2d(h, weight, bias, stride, padding).clamp(min=0)
                if number in compared:
                    outputs.append(h[0] / (h[0].norm(dim=0) + 1e-10))
                if number in pooled:
                    h = F.max_pool2d(h, 3 if alexnet else 2, 2)
            features.append(outputs)
        scores.append(sum(
            float((((a - b) ** 2) * lins[f"lin{k}.model.1.weight"].double()[0]).sum(0).mean())
            for k, (a, b) in enumerate(zip(*features, strict=True))
        ))  # fmt: skip
    return scores


def test_the_linear_weights_here_are_the_published_files():
    sums = {name: hashlib.sha256((LINEAR / f"{name}.pth").read_bytes()).hexdigest()[:8] for name in ("alex", "vgg")}
    assert sums == {"alex": "df73285e", "vgg": "a78928a0"}


def test_alexnet_is_the_formula(alex, alexnet):
    x, y = videos()
    expected = written_out(ALEX, alexnet, LINEAR / "alex.pth", x, y)
    np.testing.assert_allclose(alex.distances(x, y), expected, atol=1e-6, rtol=1e-5)


def test_vgg_is_the_formula(tmp_path):
    x, y = videos(1, 18, 20)
    path = backbone(tmp_path / "vgg16-397923af.pth", VGG)
    made = LPIPSVGG(LINEAR / "vgg.pth", path)
    np.testing.assert_allclose(
        made.distances(x, y), written_out(VGG, path, LINEAR / "vgg.pth", x, y), atol=1e-6, rtol=1e-5
    )


def test_more_pixels_than_go_through_together_give_the_same(alex, monkeypatch):
    x, y = videos(5)
    whole = alex.features(clip(x), clip(y))["distance"]
    monkeypatch.setattr("halign_bench.extractors.lpips.PIXELS", 2 * 40 * 48)
    np.testing.assert_allclose(alex.features(clip(x), clip(y))["distance"], whole, rtol=1e-5)
    assert whole.shape == (5,) and (whole > 0).all()


def test_the_smallest_frames_that_the_nets_take(alex):
    x, y = videos(1, 31, 31)
    assert np.isfinite(alex.features(clip(x), clip(y))["distance"]).all()
    small = clip(x[:, :30])
    assert alex([small], [clip(y[:, :30])]) == [Unscorable("frame smaller than the 31 pixels that LPIPS needs")]


def test_clips_of_another_size_are_not_compared_and_of_another_length_over_the_frames_of_both(alex):
    x, y = videos()
    assert alex([clip(x[:, :32])], [clip(y)]) == [Unscorable("frame size differs from the target's")]
    (shorter,) = alex([clip(x[:2])], [clip(y)])
    np.testing.assert_array_equal(shorter["distance"], alex([clip(x)], [clip(y)])[0]["distance"][:2])


def test_a_clip_is_at_no_distance_from_itself_and_further_the_more_it_is_spoilt(alex):
    x, _ = videos()
    real, rng = clip(x), np.random.default_rng(1)
    metric, values = get("metric", "lpips"), []
    for level in (0, 10, 40, 120):
        made = replace(real, video=np.clip(x + rng.normal(0, level, x.shape), 0, 255).astype(np.uint8))
        scorer = metric(alex)
        scorer.update(Scored(made, real, *alex([made, real], [real, real])))
        values.append(scorer.compute())
        assert alex.protocol in scorer.protocol
    assert values[0] == 0.0 and values == sorted(values) and len(set(values)) == 4


def test_the_protocol_names_both_files(alex, alexnet):
    for path in (alexnet, LINEAR / "alex.pth"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in alex.protocol
    assert (LPIPSAlex.assets, LPIPSVGG.assets) == (("lpips-alex", "alexnet"), ("lpips-vgg", "vgg16"))


@pytest.mark.parametrize(
    ("linear", "change", "message"),
    [
        ("vgg.pth", {}, r"does not have the layout of LPIPS with AlexNet: lin1.model.1.weight must be"),
        ("alex.pth", {"features.8.weight": torch.zeros(1)}, r"features.8.weight must be \[256, 384, 3, 3\]"),
        ("alex.pth", {"features.0.bias": None}, r"torchvision's AlexNet: features.0.bias must be \[64\]"),
    ],
)
def test_files_of_another_layout_are_refused(alexnet, tmp_path, linear, change, message):
    state = {k: v for k, v in (torch.load(alexnet, weights_only=True) | change).items() if v is not None}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(RequestError, match=message):
        LPIPSAlex(LINEAR / linear, tmp_path / "a.pth")


def test_files_that_would_have_to_be_run_are_not_opened(tmp_path):
    torch.save({"features.0.weight": Path("anything")}, tmp_path / "a.pth")
    with pytest.raises(RequestError, match="not a state dict of AlexNet backbone"):
        LPIPSAlex(LINEAR / "alex.pth", tmp_path / "a.pth")
