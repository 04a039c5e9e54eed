"""Labels candidates for preferences where real frames are all there is to go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from halign_bench.track import Clip


class PixelAnnotator:
    """Scores a candidate by its distance to the real frames of its prompt; there is no net in it.

    With frames in [0, 1], averaged over areas of s x s pixels (P_s), d/dt the difference of
    successive frames and |.| the mean of absolute values over everything:

    fidelity  - mean over s in 1, 2, 4 of  |P_s(made) - P_s(real)| + |grad P_s(made) - grad P_s(real)|
    motion    - mean over s in 2, 4 of  |D_made - D_real| / (|D_real| + e) + |log((|D_made| + e) / (|D_real| + e))|
              with D = d/dt P_s and e = 0.002

    Both are 0 for the real frames and negative for all others. The logarithm is what keeps a frozen
    clip from beating one that moves as much as it should but not alike: on the first term alone
    standing still is the safe choice. Static errors cancel in d/dt, so a wrong colour costs no motion.
    """

    criteria: tuple[str, ...] = ("motion", "fidelity")
    protocol = (
        "clips ground truth v1: fidelity = -mean over 1, 2, 4 px areas of L1 of pixels + L1 of gradients; motion = "
        "-mean over 2, 4 px areas of relative L1 of frame differences + |log ratio of their magnitudes|, e = 0.002"
    )

    def __call__(self, video: np.ndarray, target: Clip) -> dict[str, float]:
        import numpy as np

        if video.shape != target.video.shape:
            raise ValueError(f"candidate for {target.id} is {video.shape}, its prompt is {target.video.shape}")
        made, real = video.astype(np.float64) / 255, target.video.astype(np.float64) / 255
        fidelity, motion = [], []
        for scale in (1, 2, 4):
            if scale > min(made.shape[1:3]):
                continue
            a, b = _areas(made, scale), _areas(real, scale)
            slopes = [np.abs(np.diff(a, axis=axis) - np.diff(b, axis=axis)) for axis in (1, 2)]
            fidelity.append(np.abs(a - b).mean() + np.mean([s.mean() for s in slopes if s.size] or [0.0]))
            if scale > 1 or min(made.shape[1:3]) < 2:
                moved, truth = np.diff(a, axis=0), np.diff(b, axis=0)
                much, right = np.abs(moved).mean() + 0.002, np.abs(truth).mean() + 0.002
                motion.append(np.abs(moved - truth).mean() / right + abs(np.log(much / right)))
        return {"motion": 0.0 - float(np.mean(motion)), "fidelity": 0.0 - float(np.mean(fidelity))}


def _areas(frames: np.ndarray, scale: int) -> np.ndarray:
    """Means of `scale` x `scale` pixels of `[T, H, W, 3]`; rows and columns that do not fill one are left out."""
    count, height, width = frames.shape[0], frames.shape[1] // scale, frames.shape[2] // scale
    cut = frames[:, : height * scale, : width * scale]
    return cut.reshape(count, height, scale, width, scale, 3).mean((2, 4))
