"""Inception and I3D: the published layouts, what is done to pixels, and files and clips that will not do."""

from __future__ import annotations

import doctest
import importlib
import math
from pathlib import Path

import numpy as np
import published
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from halign_bench.errors import RequestError
from halign_bench.extractors import _i3d_net, _inception_net, i3d, inception
from halign_bench.extractors._pixels import batched
from halign_bench.extractors._weights import StateDict
from halign_bench.extractors.i3d import I3DTorchScript, I3DVideoGPT, centred
from halign_bench.extractors.inception import PREPROCESSINGS, Inception, clean, pytorch_fid, torch_fidelity
from halign_bench.track import Clip, Unscorable


@pytest.mark.parametrize("name", ["_pixels", "i3d"])
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(f"halign_bench.extractors.{name}")).failed == 0


def video(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


def clip(pixels: np.ndarray, number: int = 0) -> Clip:
    return Clip(f"clip{number}", "person", pixels, np.zeros((8, 8, 3), np.uint8))


def run(extractor, *videos: np.ndarray):
    clips = [clip(pixels, number) for number, pixels in enumerate(videos)]
    return extractor(clips, clips)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    return published.write_inception(tmp_path_factory.mktemp("weights") / "inception.pth")


@pytest.fixture(scope="module")
def i3d_file(tmp_path_factory):
    return published.write_i3d(tmp_path_factory.mktemp("weights") / "i3d.pt")


# Files


def test_the_layouts_have_the_published_numbers_of_parameters():
    """As torchvision counts Inception-v3 without its side branch, but 1008 classes; I3D by its paper's table."""
    for layout, trained in ((_inception_net.published_layout(), 23_850_960), (_i3d_net.published_layout(), 12_697_264)):
        assert sum(math.prod(shape) for name, shape in layout.items() if "running" not in name) == trained
    assert "Mixed_7c.branch3x3dbl_3b.conv.weight" in _inception_net.published_layout()
    assert "Mixed_5c.b3b.bn.running_var" in _i3d_net.published_layout()


SMALL = {"a.conv.weight": (4, 3, 3, 3)} | {f"a.bn.{p}": (4,) for p in ("weight", "bias", "running_mean", "running_var")}


def test_a_folded_norm_computes_what_the_two_layers_did(tmp_path):
    state = published.random_state(SMALL)
    torch.save(state, tmp_path / "small.pth")
    read = StateDict(tmp_path / "small.pth")
    weight, bias = read.convolution("a.conv", "a.bn", SMALL["a.conv.weight"], 1e-3)
    read.done()
    x = torch.randn(2, 3, 7, 7, generator=torch.Generator().manual_seed(1))
    parts = (state[f"a.bn.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
    theirs = F.batch_norm(F.conv2d(x, state["a.conv.weight"]), *parts, eps=1e-3)
    assert torch.allclose(F.conv2d(x, weight, bias), theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("a.bn.bias"), "lack a.bn.bias"),
        (lambda state: state.update({"a.conv.weight": torch.zeros(4, 3, 1, 1)}), "is \\(4, 3, 1, 1\\)"),
        (lambda state: state.update({"b": torch.zeros(1)}), "hold b too"),
        (lambda state: state.update({"b": "text"}), "hold no state dict"),
    ],
)
def test_a_file_of_another_layout_is_refused_in_a_sentence_that_names_it(tmp_path, change, sentence):
    state = published.random_state(SMALL)
    change(state)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(RequestError, match=f"other.pth.*{sentence}"):
        read = StateDict(tmp_path / "other.pth")
        read.convolution("a.conv", "a.bn", SMALL["a.conv.weight"], 1e-3)
        read.done()


class Dangerous:
    def __reduce__(self):
        return (print, ("this ran",))


def test_what_is_no_weight_file_is_refused_and_nothing_in_it_runs(tmp_path, capsys):
    torch.save({"a": Dangerous()}, tmp_path / "pickle.pth")
    (tmp_path / "text.pth").write_text("not weights")
    for name in ("pickle.pth", "text.pth", "absent.pth", "."):
        with pytest.raises(RequestError, match=r"cannot be (opened|read)"):
            StateDict(tmp_path / name)
    assert "this ran" not in capsys.readouterr().out


def test_safetensors_and_files_without_training_counters_are_read(tmp_path):
    from safetensors.torch import save_file

    state = {name: value for name, value in published.random_state(SMALL).items() if "num_batches" not in name}
    save_file(state, tmp_path / "small.safetensors")
    read = StateDict(tmp_path / "small.safetensors")
    read.convolution("a.conv", "a.bn", SMALL["a.conv.weight"], 1e-3)
    read.done()


# Inception's pixels


def test_tensorflow_1_bilinear_at_single_pixels():
    frames = video(1, 180, 500)
    resized = torch_fidelity(torch.from_numpy(frames)) * 128 + 128
    for row, column in ((0, 0), (298, 298), (17, 250), (298, 3)):
        y, x = row * 180 / 299, column * 500 / 299
        top, left = int(y), int(x)
        bottom, right = min(top + 1, 179), min(left + 1, 499)
        down, across = y - top, x - left
        corners = frames[0].astype(float)
        upper = corners[top, left] * (1 - across) + corners[top, right] * across
        lower = corners[bottom, left] * (1 - across) + corners[bottom, right] * across
        expected = upper * (1 - down) + lower * down
        assert resized[0, :, row, column].numpy() == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize("size", [(64, 48), (299, 299), (700, 401)])
def test_clean_preprocessing_is_that_of_pil_on_floats(size):
    frames = video(1, *size)
    channels = [
        np.asarray(Image.fromarray(frames[0, :, :, c].astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC))
        for c in range(3)
    ]
    expected = (np.stack(channels).clip(0, 255) - 128) / 128
    apart = np.abs(clean(torch.from_numpy(frames))[0].numpy() - expected)
    assert apart.max() < 1e-4 and apart.mean() < 1e-5  # on noise; PIL has its coefficients in double precision


def test_preprocessings_leave_a_picture_of_the_right_size_alone_but_for_the_scale():
    frames = torch.from_numpy(video(1, 299, 299))
    pixels = frames.permute(0, 3, 1, 2).float()
    for prepare in (torch_fidelity, clean):
        assert torch.allclose(prepare(frames), pixels / 128 - 1, atol=1e-5)
    assert torch.allclose(pytorch_fid(frames), pixels / 127.5 - 1, atol=1e-5)


def test_the_average_pool_leaves_padding_out_and_the_last_block_pools_by_maximum():
    for block, expected in ((_inception_net._mixed_7(4, False), 1 / 4), (_inception_net._mixed_7(4, True), 1.0)):
        with torch.no_grad():
            block.branch_pool.weight.fill_(0.25)
            block.branch_pool.bias.zero_()
            assert torch.allclose(block(torch.ones(1, 4, 5, 5))[:, -192:], torch.tensor(1.0))
            corner = torch.zeros(1, 4, 5, 5)
            corner[..., 0, 0] = 1
            assert torch.allclose(block(corner)[0, -192:, 0, 0], torch.tensor(expected))


def test_inception_features_do_not_depend_on_batches_sizes_or_neighbours(inception_file):
    first, second = video(3, 40, 56), video(2, 64, 32, seed=1)
    extractor = Inception(inception_file, batch=4)
    a, nothing, b = run(extractor, first, first[:0], second)
    assert a.shape == (3, 2048) and b.shape == (2, 2048) and a.dtype == np.float32 and np.isfinite(a).all()
    assert nothing == Unscorable("no frames")
    alone = extractor.images(torch.from_numpy(second).permute(0, 3, 1, 2))
    assert np.allclose(b, alone, rtol=1e-4, atol=1e-5)
    extractor.every = 2
    assert np.allclose(run(extractor, first)[0], a[::2], rtol=1e-4, atol=1e-5)
    assert extractor.name == "inception" and "TensorFlow 1 bilinear" in extractor.protocol
    assert StateDict(inception_file).sha256 in extractor.protocol


@pytest.fixture
def unread(monkeypatch):
    """Extractors without weights, for what does not need them."""
    monkeypatch.setattr(inception, "load", lambda path: (torch.nn.Identity(), "5" * 64))
    monkeypatch.setattr(i3d, "load", lambda path: (torch.nn.Identity(), "5" * 64))
    return Path("unread")


@pytest.mark.parametrize("preprocessing", sorted(PREPROCESSINGS))
def test_inception_names_and_protocols_tell_preprocessings_apart(unread, preprocessing):
    extractor = Inception(unread, preprocessing=preprocessing, every=5)
    assert preprocessing in extractor.protocol and "one frame in 5" in extractor.protocol
    assert extractor.name == PREPROCESSINGS[preprocessing][0]


def test_inception_refuses_wrong_options_and_wrong_pixels(unread):
    for options in ({"preprocessing": "bilinear"}, {"every": 0}, {"batch": 0}):
        with pytest.raises(RequestError):
            Inception(unread, **options)
    extractor = Inception(unread)
    with pytest.raises(ValueError, match="values 0 to 255, not float32"):
        run(extractor, video(1, 8, 8).astype(np.float32) / 255)
    with pytest.raises(ValueError, match=r"uint8 \[N, 3, H, W\]"):
        extractor.images(torch.zeros(1, 3, 8, 8))


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 2)), max_size=8), st.integers(1, 5))
def test_batches_hold_every_row_once_and_in_order(pieces, size):
    tensors = [torch.full((count, width), float(number)) for number, (count, width) in enumerate(pieces)]
    batches = list(batched(tensors, size))
    rows = [(float(row[0]), len(row)) for batch in batches for row in batch]
    assert rows == [(float(n), width) for n, (count, width) in enumerate(pieces) for _ in range(count)]
    assert all(0 < len(batch) <= size for batch in batches)


def pattern(frames: int, height: int, width: int) -> np.ndarray:
    return (np.arange(frames * height * width * 3) % 251).astype(np.uint8).reshape(frames, height, width, 3)


def test_inception_still_computes_what_agreed_with_the_public_programs(inception_file):
    """On the same random weights torch-fidelity's and pytorch-fid's features agreed with these to 1e-5."""
    (features,) = run(Inception(inception_file), pattern(1, 48, 64))
    assert (features.mean(), features.std(), features[0, 2]) == pytest.approx((0.745047, 0.985978, 0.0078396), rel=1e-3)


# I3D


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 3))
def test_same_padding_gives_as_many_places_as_strides_fit(size, kernel, stride):
    padded = _i3d_net.pad_same(torch.ones(1, 1, size, 1, 1), [kernel, 1, 1], [stride, 1, 1])
    assert (padded.shape[2] - kernel) // stride + 1 == -(-size // stride)
    behind = padded.shape[2] - 1 - int(padded.flatten().nonzero().max())
    assert behind - int(padded.flatten().nonzero().min()) in (0, 1)  # the odd one behind
    assert padded.sum() == size


@pytest.mark.parametrize("frames", [9, 16, 17])
def test_nine_frames_are_enough_for_i3d_and_eight_are_not(frames):
    with torch.device("meta"):
        net = _i3d_net.I3DNet()
        assert net(torch.zeros(2, 3, frames, 224, 224)).shape == (2, 400)
        with pytest.raises(RuntimeError):
            net(torch.zeros(2, 3, _i3d_net.LEAST_FRAMES - 1, 224, 224))


def test_the_centre_is_cut_out_of_the_longer_side():
    frames = np.zeros((2, 224, 300, 3), np.uint8)
    frames[:, :, 38:262] = 255
    for wide in (frames, frames.transpose(0, 2, 1, 3)):
        cut = centred(torch.from_numpy(wide.copy()))
        assert cut.shape == (3, 2, 224, 224) and bool((cut == 1).all())
    assert centred(torch.from_numpy(video(1, 33, 100))).shape == (3, 1, 224, 224)


class TinyNet(torch.nn.Module):
    """400 numbers that know the mean of each channel in each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 400)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(400, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear((x * torch.arange(1, x.shape[2] + 1).view(1, 1, -1, 1, 1)).mean([2, 3, 4]))


@pytest.fixture(scope="module")
def tiny_script(tmp_path_factory):
    return published.write_torchscript(tmp_path_factory.mktemp("weights") / "tiny.pt", TinyNet())


def test_torchscript_is_opened_only_when_trusted_or_of_the_pinned_hash(tiny_script, tmp_path):
    with pytest.raises(RequestError, match="TorchScript, which is code that runs, and no sha256 is pinned"):
        I3DTorchScript(tiny_script)
    with pytest.raises(RequestError, match="is not 000000000000…"):
        I3DTorchScript(tiny_script, sha256="0" * 64)
    trusted = I3DTorchScript(tiny_script, trust=True)
    sha256 = trusted.protocol.split("sha256 ")[1][:64]
    assert I3DTorchScript(tiny_script, sha256=sha256).protocol == trusted.protocol
    (tmp_path / "other.pt").write_bytes(b"no archive")
    with pytest.raises(RequestError, match=r"other.pt is no TorchScript file"):
        I3DTorchScript(tmp_path / "other.pt", trust=True)


def test_the_detector_gets_pixels_of_0_to_255_and_does_the_rest_itself(tiny_script):
    pixels = video(9, 224, 224)
    inside = I3DTorchScript(tiny_script, trust=True, frames=9)
    outside = I3DTorchScript(tiny_script, trust=True, frames=9, preprocessing="common-metrics")
    (a,), (b,) = run(inside, pixels), run(outside, pixels)
    x = torch.from_numpy(pixels).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    with torch.no_grad():
        expected = TinyNet()
        expected.linear.bias.copy_(inside._net.net.linear.bias)
        assert np.allclose(a, expected(x).numpy(), atol=1e-4) and np.allclose(b, a, atol=1e-4)
    assert inside.name != outside.name and inside.protocol != outside.protocol


def test_windows_of_clips_and_what_is_too_short_for_one(tiny_script):
    clips = [video(33, 20, 30), video(15, 20, 30, 1), video(16, 40, 20, 2)]
    first = run(I3DTorchScript(tiny_script, trust=True), *clips)
    every = run(I3DTorchScript(tiny_script, trust=True, windows="all", batch=1), *clips)
    short = Unscorable("shorter than a window of 16 frames")
    assert [getattr(f, "shape", f) for f in first] == [(1, 400), short, (1, 400)]
    assert every[0].shape == (2, 400) and np.allclose(every[0][:1], first[0], atol=1e-5)
    assert not np.allclose(every[0][1], every[0][0], atol=1e-3)


def test_i3d_refuses_windows_that_it_cannot_see_and_pixels_of_another_range(tiny_script):
    with pytest.raises(RequestError, match="at least 9"):
        I3DTorchScript(tiny_script, trust=True, frames=8)
    for options in ({"windows": "some"}, {"batch": 0}, {"preprocessing": "videogpt"}):
        with pytest.raises(RequestError):
            I3DTorchScript(tiny_script, trust=True, **options)
    extractor = I3DTorchScript(tiny_script, trust=True)
    with pytest.raises(ValueError, match="values 0 to 255, not float64"):
        run(extractor, video(16, 8, 8) / 127.5 - 1)
    with pytest.raises(ValueError, match="too short"):
        extractor.videos(torch.zeros(1, 8, 3, 8, 8, dtype=torch.uint8))


class OtherNet(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean([2, 3, 4])


def test_a_torchscript_with_another_call_or_output_is_refused(tmp_path):
    script = published.write_torchscript(tmp_path / "three.pt", OtherNet())
    with pytest.raises(RequestError, match=r"three.pt gives \(1, 3\) where \(1, 400\) logits"):
        run(I3DTorchScript(script, trust=True), video(16, 8, 8))
    torch.jit.script(OtherNet()).save(str(tmp_path / "call.pt"))
    with pytest.raises(RequestError, match=r"call.pt could not be run"):
        run(I3DTorchScript(tmp_path / "call.pt", trust=True), video(16, 8, 8))


def test_both_i3d_extractors_agree_on_the_same_net(i3d_file, tmp_path):
    script = published.write_torchscript(tmp_path / "i3d.pt", _i3d_net.load(i3d_file)[0])
    pixels = video(10, 40, 48)
    (a,) = run(I3DTorchScript(script, trust=True, preprocessing="common-metrics", frames=9), pixels)
    (b,) = run(I3DVideoGPT(i3d_file, frames=9), pixels)
    assert a.shape == b.shape == (1, 400)
    assert np.abs(a - b).max() < 1e-4 * np.abs(a).mean()


def test_i3d_still_computes_what_agreed_with_the_public_program(i3d_file):
    """On the same random weights the logits of common_metrics_on_video_quality agreed with these to 1e-5."""
    (logits,) = run(I3DVideoGPT(i3d_file, frames=9), pattern(9, 40, 48))
    assert (*logits[0, :3], logits.std()) == pytest.approx((-0.676892, -1.961146, -0.178331, 1.706782), rel=1e-3)


def test_videogpts_own_range_is_another_extractor(unread):
    whole, half = I3DVideoGPT(unread), I3DVideoGPT(unread, preprocessing="videogpt")
    frames = torch.from_numpy(video(9, 30, 30))
    assert torch.allclose(whole.prepare(frames), 2 * half.prepare(frames))
    assert whole.name != half.name and "[-0.5, 0.5]" in half.protocol
    with pytest.raises(RequestError, match="available: common-metrics, videogpt"):
        I3DVideoGPT(unread, preprocessing="stylegan-v")
