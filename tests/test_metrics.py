"""Metrics against independent computations, at their limits, and on clips that cannot be scored."""

from __future__ import annotations

import doctest
import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from halign_bench.metrics._hand_boxes import hand_boxes
from halign_bench.metrics.csim import cosine_similarity
from halign_bench.metrics.fid import frechet_distance, frechet_distance_from_moments
from halign_bench.metrics.hkc import hand_confidence, hand_coverage
from halign_bench.metrics.hkv import hand_variance
from halign_bench.metrics.kid import kernel_distance
from halign_bench.metrics.motion import motion_magnitude
from halign_bench.metrics.motion_gap import relative_gap
from halign_bench.metrics.psnr import psnr
from halign_bench.metrics.ssim import similarity_map, ssim
from halign_bench.metrics.ssim_hand import box_ssim
from halign_bench.metrics.sync_c import sync_scores
from hypothesis import given, settings
from hypothesis import strategies as st

from halign_bench.metric import Scored
from halign_bench.registry import get
from halign_bench.track import Clip, SkeletonLayout, Unscorable

NAMES = (
    "csim", "fid", "fvd", "hkc", "hkc_coverage", "hkv", "kid", "lpips", "motion", "motion_gap", "psnr", "psnr_hand",
    "ssim", "ssim_hand", "sync_c", "sync_d", "sync_offset",
)  # fmt: skip


@pytest.mark.parametrize("name", (*NAMES, "_hand_boxes"))
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(f"halign_bench.metrics.{name}")).failed == 0


def make_clip(video: np.ndarray | None = None, number: int = 0, **changes) -> Clip:
    video = np.zeros((5, 16, 16, 3), np.uint8) if video is None else video
    fields = {"audio": np.zeros(3200, np.float32), "skeleton": np.zeros((5, 50, 3), np.float32)} | changes
    return Clip(f"clip{number}", f"person{number // 2}", video, video[0], **fields)


def scored(features=None, target_features=None, number: int = 0, video=None, target=None, **changes) -> Scored:
    return Scored(make_clip(video, number), make_clip(target, number, **changes), features, target_features)


def value_of(name: str, *items: Scored):
    metric = get("metric", name)()
    for item in items:
        metric.update(item)
    return metric.compute(), metric


# Fréchet distance


def naive_frechet(mean1, cov1, mean2, cov2):
    """The textbook formula, with the eigenvalues of Σ1Σ2."""
    roots = np.sqrt(np.linalg.eigvals(cov1 @ cov2).astype(complex)).real
    return ((mean1 - mean2) ** 2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * roots.sum()


@pytest.mark.parametrize(("n1", "n2", "dimensions"), [(200, 150, 6), (6, 9, 12), (40, 5, 12), (12, 13, 12)])
def test_frechet_distance_is_the_textbook_formula(n1, n2, dimensions):
    rng = np.random.default_rng(n1)
    x = rng.normal(size=(n1, dimensions)) * np.arange(1, dimensions + 1)
    y = rng.normal(0.5, 2, size=(n2, dimensions))
    moments = (x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
    assert frechet_distance(x, y) == pytest.approx(naive_frechet(*moments), rel=1e-6)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance_from_moments(*moments), rel=1e-7)


def test_frechet_distance_agrees_with_the_matrix_root_of_scipy():
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(300, 8)), rng.gamma(2.0, size=(200, 8))
    m1, c1, m2, c2 = x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T)
    with_root = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert frechet_distance(x, y) == pytest.approx(with_root, rel=1e-8)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(2, 9), st.integers(2, 9), st.integers(1, 7), st.integers(1, 4), st.floats(0, 1e4), st.integers(0, 99)
)
def test_frechet_distance_is_finite_and_never_negative(n1, n2, dimensions, rank, offset, seed):
    """Tiny samples, rank-deficient and far from the origin, repeated rows, constant columns."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n1, rank)) @ rng.normal(size=(rank, dimensions)) + offset
    y = np.repeat(x[:1], n2, axis=0) if seed % 3 == 0 else rng.normal(size=(n2, dimensions)) * (seed % 2)
    for left, right in ((x, y), (y, x), (y, y), (x, np.concatenate([x, x]))):
        distance = frechet_distance(left, right)
        assert np.isfinite(distance) and distance >= 0
    assert frechet_distance(x, x) <= 1e-9 * (1 + (x**2).sum())
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-6, abs=1e-8 * (1 + offset))


def test_frechet_distance_refuses_what_it_cannot_mean():
    with pytest.raises(ValueError, match="two samples"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="NaN"):
        frechet_distance(np.full((3, 2), np.nan), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="dimensions"):
        frechet_distance(np.zeros((3, 2)), np.zeros((3, 4)))


# Kernel distance


def test_kernel_distance_is_the_double_sum():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(5, 3)), rng.normal(1, 1, size=(4, 3))

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    xx = np.mean([k(x[i], x[j]) for i in range(5) for j in range(5) if i != j])
    yy = np.mean([k(y[i], y[j]) for i in range(4) for j in range(4) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(xx + yy - 2 * xy, rel=1e-12)


def test_kernel_distance_agrees_with_torchmetrics():
    from torchmetrics.image.kid import poly_mmd

    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(30, 6)), rng.normal(0.3, 1, size=(30, 6))
    assert kernel_distance(x, y) == pytest.approx(poly_mmd(torch.from_numpy(x), torch.from_numpy(y)).item(), rel=1e-6)


def test_kernel_distance_is_unbiased():
    rng = np.random.default_rng(4)
    draws = [kernel_distance(rng.normal(size=(8, 3)), rng.normal(size=(8, 3))) for _ in range(800)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / np.sqrt(800)


@pytest.mark.parametrize(("name", "shape"), [("fid", (5, 4)), ("kid", (5, 4)), ("fvd", (4,))])
def test_set_metrics_resample_the_same_clips_on_both_sides(name, shape):
    rng = np.random.default_rng(5)
    items = [scored(rng.normal(size=shape), rng.normal(0.5, 2, size=shape), i) for i in range(6)]
    items[2] = scored(Unscorable("no face"), items[2].target_features, 2)
    value, metric = value_of(name, *items)
    function = kernel_distance if name == "kid" else frechet_distance

    def direct(positions):
        kept = [items[i] for i in positions if i != 2]
        sides = ([np.atleast_2d(getattr(i, s)) for i in kept] for s in ("features", "target_features"))
        return function(*(np.concatenate(side) for side in sides))

    assert value == pytest.approx(direct(range(6)), rel=1e-9)
    draw = np.array([0, 0, 2, 4, 5, 5, 1])
    assert metric.compute(draw) == pytest.approx(direct(draw), rel=1e-9)
    assert metric.failures() == {"no face": 1}
    assert metric.compute(np.array([2, 2, 0])) is None


@pytest.mark.parametrize("name", ["fid", "kid", "fvd"])
def test_set_metrics_of_fewer_than_two_clips_have_no_value_but_a_reason(name):
    value, metric = value_of(name, scored(np.ones((3, 4)), np.ones((3, 4))), scored(Unscorable("no face"), None, 1))
    assert value is None and "no face (1 clips)" in metric.reason()
    assert value_of(name)[0] is None


# Sync


def reference_sync(video, audio, vshift):
    """The published computation, in torch."""
    feat1, feat2 = torch.from_numpy(video), torch.from_numpy(audio)
    padded = torch.nn.functional.pad(feat2, (0, 0, vshift, vshift))
    window = 2 * vshift + 1
    distances = [
        torch.nn.functional.pairwise_distance(feat1[[i]].repeat(window, 1), padded[i : i + window])
        for i in range(len(feat1))
    ]
    means = torch.stack(distances, 1).mean(1)
    least, at = means.min(0)
    return (means.median() - least).item(), least.item(), vshift - at.item()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 8), st.integers(0, 15), st.integers(0, 1000))
def test_sync_scores_are_the_published_ones(windows, dimensions, vshift, seed):
    rng = np.random.default_rng(seed)
    video, audio = rng.normal(size=(2, windows, dimensions))
    assert sync_scores(video, audio, vshift) == pytest.approx(reference_sync(video, audio, vshift), abs=1e-9)


@pytest.mark.parametrize("shift", [-4, -1, 0, 3])
def test_a_known_shift_is_found(shift):
    rng = np.random.default_rng(6)
    long = rng.normal(size=(60, 16))
    video, audio = long[10:50], long[10 + shift : 50 + shift]
    confidence, distance, offset = sync_scores(video, audio, 15)
    assert offset == shift and distance < confidence
    features = {"video": video, "audio": audio, "vshift": 15}
    assert value_of("sync_offset", scored(features))[0] == abs(shift)
    assert value_of("sync_c", scored(features))[0] == confidence
    assert value_of("sync_d", scored(features))[0] == distance


@pytest.mark.parametrize("name", ["sync_c", "sync_d", "sync_offset"])
def test_sync_without_audio_window_or_numbers_is_counted_not_scored(name):
    nothing = {"video": np.zeros((0, 4)), "audio": np.zeros((0, 4)), "vshift": 3}
    broken = {"video": np.full((3, 4), np.nan), "audio": np.zeros((3, 4)), "vshift": 3}
    value, metric = value_of(name, scored(nothing), scored(broken, number=1), scored(nothing, number=2, audio=None))
    assert value is None and set(metric.failures()) == {
        "shorter than one sync window", "sync embeddings are not finite", "no audio",
    }  # fmt: skip


# Hands


def hands(confidence=0.9, expected=True, keypoints=None):
    return {
        "keypoints": np.zeros((5, 2, 21, 2)) if keypoints is None else keypoints,
        "confidence": np.full((5, 2, 21), confidence),
        "expected": np.full((5, 2), expected),
    }


def test_hands_that_are_not_expected_do_not_count():
    given = hands(0.9)
    given["confidence"][:, 1] = 0.1
    assert hand_confidence(given["confidence"], given["expected"]) == pytest.approx(0.5)
    assert hand_coverage(given["confidence"], given["expected"]) == 0.5
    given["expected"][:, 1] = False
    assert hand_confidence(given["confidence"], given["expected"]) == pytest.approx(0.9)
    assert hand_coverage(given["confidence"], given["expected"]) == 1.0


@pytest.mark.parametrize("name", ["hkc", "hkc_coverage", "hkv"])
def test_a_clip_without_hands_is_counted_not_scored_zero(name):
    value, metric = value_of(name, scored(hands(expected=False)), scored(Unscorable("no skeleton"), number=1))
    assert value is None and metric.failures() == {"no hands": 1, "no skeleton": 1}


@pytest.mark.parametrize("name", ["hkc", "hkc_coverage", "hkv"])
def test_hands_need_no_skeleton_where_the_extractor_needs_none(name):
    keypoints = np.random.default_rng(0).uniform(0, 16, (5, 2, 21, 2))
    bare, with_one = (scored(hands(keypoints=keypoints), **changes) for changes in ({"skeleton": None}, {}))
    assert value_of(name, bare)[0] == value_of(name, with_one)[0] is not None


def test_missed_hands_lower_confidence_and_coverage():
    items = scored(hands(0.8)), scored(hands(0.1), number=1)
    assert value_of("hkc", *items)[0] == pytest.approx(0.45)
    assert value_of("hkc_coverage", *items)[0] == 0.5


def test_hand_variance_is_that_of_numpy_and_free_of_frame_size():
    rng = np.random.default_rng(7)
    keypoints = rng.uniform(0, 64, size=(5, 2, 21, 2))
    seen = np.ones((5, 2), bool)
    expected = np.mean([np.var(keypoints[:, h, k] / 64 * 100, axis=0).sum() for h in range(2) for k in range(21)])
    assert hand_variance(keypoints, seen, (48, 64)) == pytest.approx(expected)
    assert hand_variance(keypoints * 2, seen, (96, 128)) == pytest.approx(expected)
    assert hand_variance(keypoints + 7, seen, (48, 64)) == pytest.approx(expected)
    seen[:, 1] = False
    keypoints[:, 1] = np.inf
    assert np.isfinite(hand_variance(keypoints, seen, (48, 64)))
    assert hand_variance(keypoints, np.eye(5, 2, dtype=bool), (48, 64)) is None


# Pixels of the hands


def with_hands(video, target, keypoints, visible=True, confidence=0.9, **changes):
    """A clip beside a target whose hands `keypoints` `[T, 2, 21, 2]` come from an extractor, without a skeleton."""
    found = {
        "keypoints": keypoints, "confidence": np.full(keypoints.shape[:3], confidence),
        "expected": np.broadcast_to(visible, keypoints.shape[:2]),
    }  # fmt: skip
    return scored(found, found, video=video, target=target, **{"skeleton": None} | changes)


def two_hands(frames: int = 3) -> np.ndarray:
    """Keypoints inside of (4, 4) to (8, 10) and of (20, 30) to (26, 34), as x, y."""
    rng = np.random.default_rng(3)
    keypoints = rng.uniform([4, 4], [8, 10], (frames, 21, 2)), rng.uniform([20, 30], [26, 34], (frames, 21, 2))
    for hand, (low, high) in zip(keypoints, (([4, 4], [8, 10]), ([20, 30], [26, 34])), strict=True):
        hand[:, 0], hand[:, 1] = low, high
    return np.stack(keypoints, 1)


def test_hand_boxes_enclose_the_keypoints_with_a_margin_inside_the_frame():
    boxes, counts = hand_boxes(two_hands(1), np.ones((1, 2), bool), (36, 48))
    # A quarter of the longer side on each side: 1.5 pixels of 6.
    assert boxes[0].tolist() == [[2, 2, 11, 13], [18, 28, 29, 36]] and counts.all()
    outside = two_hands(1) + [100.0, 0.0]
    assert not hand_boxes(outside, np.ones((1, 2), bool), (36, 48))[1].any()
    gone = np.full((1, 2, 21, 2), np.nan)
    assert not hand_boxes(gone, np.ones((1, 2), bool), (36, 48))[1].any()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 999))
def test_every_hand_box_that_counts_has_pixels(height, width, seed):
    rng = np.random.default_rng(seed)
    keypoints = rng.normal(15, 20, (4, 2, 1, 2)) + rng.normal(0, rng.choice([0, 1, 9]), (4, 2, 21, 2))
    boxes, counts = hand_boxes(keypoints, rng.random((4, 2)) < 0.7, (height, width))
    assert (boxes[counts] >= 0).all() and (boxes[counts][:, 2:] <= [width, height]).all()
    assert (boxes[counts][:, 2:] > boxes[counts][:, :2]).all()


def test_a_box_has_the_ssim_that_the_whole_frame_has_there():
    video, target = videos(11, (1, 36, 48, 3))
    whole = similarity_map(video, target)[0]
    for left, top, right, bottom in ((2, 2, 11, 13), (18, 28, 29, 36), (0, 0, 1, 1), (47, 35, 48, 36), (0, 0, 48, 36)):
        expected = whole[top:bottom, left:right].mean()
        assert box_ssim(video[0], target[0], (left, top, right, bottom)) == pytest.approx(expected, abs=1e-6)


def test_hand_pixels_are_those_in_the_boxes_alone():
    video, target = videos(12, (3, 36, 48, 3))
    item = with_hands(video, target, two_hands())
    squares = (video.astype(float) - target) ** 2
    boxes = [np.s_[2:13, 2:11], np.s_[28:36, 18:29]]
    per_box = [10 * np.log10(255**2 / squares[t][box].mean()) for t in range(3) for box in boxes]
    assert value_of("psnr_hand", item)[0] == pytest.approx(np.mean(per_box))
    per_map = [similarity_map(video, target)[t][box].mean() for t in range(3) for box in boxes]
    assert value_of("ssim_hand", item)[0] == pytest.approx(np.mean(per_map))
    elsewhere = target.copy()
    elsewhere[:, :, 40:] = 0
    assert value_of("psnr_hand", with_hands(elsewhere, target, two_hands()))[0] == 100.0
    assert value_of("ssim_hand", with_hands(elsewhere, target, two_hands()))[0] == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["ssim_hand", "psnr_hand"])
def test_the_targets_skeleton_says_where_its_hands_are(name):
    video, target = videos(13, (3, 36, 48, 3))
    layout = SkeletonLayout(("neck",), slice(1, 22), slice(22, 43), ())
    skeleton = np.ones((3, 43, 3), np.float32)
    skeleton[:, 1:, :2] = two_hands().reshape(3, 42, 2)
    elsewhere = with_hands(video, target, two_hands() + 9.0, skeleton=skeleton, layout=layout)
    value = value_of(name, with_hands(video, target, two_hands()))[0]
    assert value_of(name, elsewhere)[0] == pytest.approx(value, abs=1e-5)
    skeleton[:, 22:, 2] = 0.0  # the right hand is hidden
    assert abs(value_of(name, elsewhere)[0] - value) > 1e-3
    short = with_hands(video, target, two_hands(), skeleton=skeleton[:2], layout=layout)
    assert value_of(name, short)[1].failures() == {"skeleton has 2 frames, the clip 3": 1}


@pytest.mark.parametrize("name", ["ssim_hand", "psnr_hand"])
def test_hands_that_are_not_there_have_no_pixels(name):
    video, target = videos(14, (3, 36, 48, 3))
    items = (
        with_hands(video, target, two_hands(), visible=False), with_hands(video, target, two_hands(), confidence=0.2),
        with_hands(video, target, two_hands() + 99.0), with_hands(video[:, :30], target, two_hands()),
    )  # fmt: skip
    value, metric = value_of(name, *items)
    assert value is None
    assert metric.failures() == {"no hands": 3, "frame sizes differ from the target's: 48x30 and 48x36": 1}


def test_perceptual_distance_is_the_mean_over_frames():
    items = scored({"distance": np.array([0.1, 0.3])}), scored({"distance": np.zeros(0)}, number=1)
    value, metric = value_of("lpips", *items)
    assert value == pytest.approx(0.2) and metric.failures() == {"no frames": 1}


# Identity and pixels


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, 500))
def test_cosine_similarity_is_bounded_and_free_of_scale(dimensions, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, dimensions)) + 1e-3
    similarity = cosine_similarity(a, b)
    assert -1 <= similarity <= 1
    assert similarity == pytest.approx(cosine_similarity(3 * a, 0.1 * b), abs=1e-9)
    assert cosine_similarity(np.stack([a, a]), a) == pytest.approx(1)


def test_csim_compares_with_the_reference_image_and_refuses_a_zero_embedding():
    same = scored({"embedding": np.array([2.0, 0.0]), "reference": np.array([1.0, 0.0])})
    empty = scored({"embedding": np.zeros(2), "reference": np.array([1.0, 0.0])}, number=1)
    value, metric = value_of("csim", same, empty)
    assert value == 1.0 and metric.failures() == {"identity embedding is zero": 1}


def videos(seed=8, shape=(3, 20, 24, 3)):
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 256, shape, np.uint8)
    return video, np.clip(video + rng.normal(0, 20, shape), 0, 255).astype(np.uint8)


def test_ssim_and_psnr_agree_with_torchmetrics():
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    video, target = videos()
    x, y = (torch.from_numpy(v).permute(0, 3, 1, 2).double() for v in (video, target))
    theirs = structural_similarity_index_measure(x, y, data_range=255.0).item()
    assert ssim(video, target) == pytest.approx(theirs, abs=1e-5)
    per_frame = [peak_signal_noise_ratio(a, b, data_range=255.0).item() for a, b in zip(x, y, strict=True)]
    assert psnr(video, target) == pytest.approx(np.mean(per_frame), abs=1e-4)


def test_ssim_is_the_formula_at_each_pixel():
    video, target = videos(9, (1, 11, 12, 1))
    x, y = (np.pad(v[0, :, :, 0].astype(float), 5, mode="reflect") for v in (video, target))
    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    w = np.outer(taps, taps) / np.outer(taps, taps).sum()

    def at(i, j):
        a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
        ma, mb = (w * a).sum(), (w * b).sum()
        va, vb, c = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum(), (w * (a - ma) * (b - mb)).sum()
        return (2 * ma * mb + 6.5025) * (2 * c + 58.5225) / ((ma**2 + mb**2 + 6.5025) * (va + vb + 58.5225))

    expected = np.mean([at(i, j) for i in range(11) for j in range(12)])
    assert ssim(video, target) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["ssim", "psnr"])
def test_pixels_of_other_sizes_are_not_compared(name):
    video = videos()[0]
    value, metric = value_of(name, scored(video=video, target=video[:, :15]))
    assert value is None and metric.failures() == {"frame sizes differ from the target's: 24x20 and 24x15": 1}


@pytest.mark.parametrize("name", ["ssim", "psnr"])
def test_pixels_of_clips_of_other_lengths_are_compared_over_the_frames_of_both(name):
    video, target = videos()
    assert value_of(name, scored(video=video, target=target[:2]))[0] == value_of(
        name, scored(video=video[:2], target=target[:2])
    )[0]  # fmt: skip


# Motion


def moving(speed: int) -> np.ndarray:
    video = np.zeros((8, 32, 48, 3), np.uint8)
    for t in range(8):
        video[t, 8:24, 4 + speed * t : 12 + speed * t] = 220
    return video


def test_frozen_clips_are_seen():
    frozen = np.repeat(moving(2)[:1], 8, axis=0)
    ratio = {speed: value_of("motion", scored(video=moving(speed), target=moving(2)))[0] for speed in (1, 2, 4)}
    assert ratio[2] == 1.0 and ratio[1] < 0.6 and ratio[4] > 1.6
    assert value_of("motion", scored(video=frozen, target=moving(2)))[0] == 0.0
    assert value_of("motion_gap", scored(video=frozen, target=moving(2)))[0] == 1.0
    assert value_of("motion_gap", scored(video=moving(2), target=moving(2)))[0] == 0.0


def test_frozen_and_restless_clips_do_not_cancel_out_in_the_gap():
    frozen = np.repeat(moving(2)[:1], 8, axis=0)
    pair = scored(video=frozen, target=moving(1)), scored(video=moving(2), target=moving(1), number=1)
    assert value_of("motion", *pair)[0] == pytest.approx(1.0, abs=0.25)
    assert value_of("motion_gap", *pair)[0] > 0.5


def test_pixel_noise_counts_for_little():
    noise = np.random.default_rng(0).integers(-8, 9, (8, 32, 48, 3))
    still = np.full((8, 32, 48, 3), 100)
    assert motion_magnitude((still + noise).astype(np.uint8)) < 0.25 * np.abs(np.diff(noise, axis=0)).mean()


def test_a_target_that_does_not_move_has_no_ratio():
    still = np.zeros((8, 32, 48, 3), np.uint8)
    value, metric = value_of(
        "motion", scored(video=moving(2), target=still), scored(video=still[:1], target=still, number=1)
    )
    assert value is None and metric.failures() == {"target does not move": 1, "single frame": 1}
    assert relative_gap(0, 0) == 0


# All of them


@pytest.mark.parametrize("name", NAMES)
def test_declarations(name):
    cls = get("metric", name)
    assert cls.name == name and cls.unit and cls.summary and cls.recipe and cls.higher_is_better in (True, False, None)
    extractor = SimpleNamespace(name="toy", protocol="toy net, sha256 0")
    assert cls(extractor).protocol == f"{cls.recipe}; toy net, sha256 0"


@pytest.mark.parametrize("name", ["fid", "hkc", "csim"])
def test_features_that_are_not_finite_are_counted_not_scored(name):
    features = {"fid": np.full((3, 4), np.nan), "hkc": hands(np.nan), "csim": {"embedding": np.full(2, np.nan)}}[name]
    if name == "csim":
        features["reference"] = np.ones(2)
    value, metric = value_of(name, scored(features, np.ones((3, 4))))
    assert value is None and metric.failures() == {"score or features are not finite": 1}
