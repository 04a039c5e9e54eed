"""Pictures and sound spoilt by a known amount. Pure functions; a video is uint8 `[T, H, W, 3]`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

CANVAS = 64  # pixels of the shorter side that widths of blur are stated for
PIECE = 2**22  # values of a video that are worked on at once, in double precision


def _pieces(video: np.ndarray) -> Iterator[slice]:
    step = max(1, PIECE // max(1, video[:1].size))
    return (slice(start, start + step) for start in range(0, len(video), step))


def blurred(video: np.ndarray, sigma: float) -> np.ndarray:
    """Every frame under a Gaussian of `sigma` pixels in each direction, of frames scaled to a shorter side of 64.

    >>> flat = np.full((2, 8, 8, 3), 7, np.uint8)
    >>> bool((blurred(flat, 2.0) == flat).all())
    True
    """
    from scipy.ndimage import gaussian_filter

    width = sigma * min(video.shape[1:3]) / CANVAS
    out = np.empty(video.shape, np.uint8)
    for part in _pieces(video):
        out[part] = gaussian_filter(video[part].astype(np.float32), (0, width, width, 0)).round().astype(np.uint8)
    return out


def noisy(video: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """With independent Gaussian noise of `sigma` grey levels on every value, cut to 0..255."""
    out = np.empty(video.shape, np.uint8)
    for part in _pieces(video):
        out[part] = (video[part] + sigma * rng.standard_normal(video[part].shape)).clip(0, 255).round()
    return out


def shuffled(frames: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """An order in which `share` of the frames have changed places among themselves.

    >>> sorted(shuffled(6, 0.5, np.random.default_rng(0)).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    order = np.arange(frames)
    chosen = rng.choice(frames, round(share * frames), replace=False)
    order[np.sort(chosen)] = chosen
    return order


def frozen(frames: int, share: float) -> np.ndarray:
    """An order that stands still for the last `share` of the frames.

    >>> frozen(5, 0.5).tolist()
    [0, 1, 2, 2, 2]
    """
    return np.minimum(np.arange(frames), frames - 1 - round(share * (frames - 1)))


def chosen_frames(frames: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """bool `[frames]`: `share` of them (rounded up), at random; a larger share of the same numbers includes a smaller.

    >>> int(chosen_frames(8, 0.25, np.random.default_rng(0)).sum())
    2
    """
    return np.asarray(rng.permutation(frames) < share * frames)


def swapped(video: np.ndarray, other: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """`share` of the frames, at random, are those of another video of the same shape."""
    return np.where(chosen_frames(len(video), share, rng)[:, None, None, None], other, video)


def sound_replaced(sound: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """The last `share` of the samples are another sound's; what that lacks at its end is silence.

    >>> sound_replaced(np.ones(4, np.float32), np.full(3, 2, np.float32), 0.5).tolist()
    [1.0, 1.0, 2.0, 0.0]
    """
    whole = np.zeros(len(sound), sound.dtype)
    whole[: len(other)] = other[: len(sound)]
    start = len(sound) - round(share * len(sound))
    return np.concatenate([sound[:start], whole[start:]])


def boxes_blurred(video: np.ndarray, boxes: Sequence[tuple[int, np.ndarray]], width: float) -> np.ndarray:
    """Each box under a Gaussian of `width` times its longer side; `boxes` are (frame, (left, top, right, bottom))."""
    from scipy.ndimage import gaussian_filter

    out = np.array(video)
    for frame, (left, top, right, bottom) in boxes:
        sigma = width * max(right - left, bottom - top)
        part = video[frame, top:bottom, left:right].astype(np.float32)
        out[frame, top:bottom, left:right] = gaussian_filter(part, (sigma, sigma, 0)).round().astype(np.uint8)
    return out


def boxes_removed(video: np.ndarray, boxes: Sequence[tuple[int, np.ndarray]]) -> np.ndarray:
    """Each box is filled with the mean colour of its edge, `boxes` as for `boxes_blurred`."""
    out = np.array(video)
    for frame, (left, top, right, bottom) in boxes:
        part = video[frame, top:bottom, left:right].astype(np.float64)
        edge = np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]])
        out[frame, top:bottom, left:right] = edge.mean(0).round().astype(np.uint8)
    return out


__all__ = [
    "blurred", "boxes_blurred", "boxes_removed", "chosen_frames", "frozen", "noisy", "shuffled", "sound_replaced",
    "swapped",
]  # fmt: skip
