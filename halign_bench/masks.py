"""Where hands and mouth are on the latent grid, from the skeleton that the clip was asked to follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

    from halign_bench.track import Clip

PADDING = 0.15  # of the hand's longer side, on each side: keypoints lie inside the fingers, not on their rim
VISIBLE = 0.3  # keypoints less visible than this do not stretch the box


def hand_mask(clip: Clip, latent_shape: tuple[int, int, int, int], slots: int = 0) -> torch.Tensor:
    """fp32 `[1, T, H, W]` in [0, 1] on the latent grid: how much of each cell lies in a padded box around a hand.

    How published methods turn keypoints into a mask is not public; this one is ours: a box around the
    visible keypoints of each hand in each frame, padded, averaged over the area and the four frames of
    a latent cell (the first frame alone makes the first latent frame). Zero without a skeleton, and in the
    first `slots` latent frames, which show no video.
    """
    import numpy as np
    import torch

    frames, height, width = clip.video.shape[:3]
    mask = np.zeros((frames, height, width), dtype=np.float32)
    if clip.skeleton is not None and clip.layout is not None:
        for frame, keypoints in enumerate(clip.skeleton[:frames]):
            for rows in clip.layout.hands:
                points = keypoints[rows]
                points = points[points[:, 2] >= VISIBLE, :2]
                if not len(points):
                    continue
                low, high = points.min(axis=0), points.max(axis=0)
                margin = PADDING * float((high - low).max())
                x0, y0 = np.floor(low - margin).astype(int)
                x1, y1 = np.ceil(high + margin).astype(int) + 1
                mask[frame, max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = 1.0
    channels, latent_frames, latent_height, latent_width = latent_shape
    pooled = _pooled(mask, (channels, latent_frames - slots, latent_height, latent_width))
    return torch.nn.functional.pad(pooled, (0, 0, 0, 0, slots, 0))


def mouth_place(clip: Clip) -> tuple[np.ndarray, np.ndarray] | None:
    """Where the mouth is, `[T, 2]` (a good third of the way from nose to neck), and how long that way is, `[T]`.

    In pixels; None without a skeleton that has a nose and a neck.
    """
    import numpy as np

    if clip.skeleton is None or clip.layout is None or not {"nose", "neck"} <= set(clip.layout.body):
        return None
    nose, neck = (clip.skeleton[:, clip.layout.body.index(joint), :2] for joint in ("nose", "neck"))
    return nose + 0.38 * (neck - nose), np.linalg.norm(neck - nose, axis=-1)


def mouth_mask(clip: Clip, latent_shape: tuple[int, int, int, int]) -> torch.Tensor:
    """fp32 `[1, T, H, W]` in [0, 1]: how much of each latent cell lies in a box around the mouth, as large as
    the way from nose to neck. Zero without a skeleton."""
    import numpy as np

    frames, height, width = clip.video.shape[:3]
    mask = np.zeros((frames, height, width), dtype=np.float32)
    if (place := mouth_place(clip)) is not None:
        centre, half = place[0], place[1][:, None] / 2
        corners = np.concatenate([np.floor(centre - half), np.ceil(centre + half)], axis=1).clip(0).astype(int)
        for frame, (x0, y0, x1, y1) in enumerate(corners[:frames]):
            mask[frame, y0:y1, x0:x1] = 1.0
    return _pooled(mask, latent_shape)


def _pooled(mask: np.ndarray, latent_shape: tuple[int, int, int, int]) -> torch.Tensor:
    """`[frames, height, width]` averaged over the area and the frames of each latent cell."""
    import numpy as np
    import torch

    _, latent_frames, latent_height, latent_width = latent_shape
    frames, height, width = mask.shape
    groups = (frames - 1) // (latent_frames - 1) if latent_frames > 1 else 1
    folded = np.concatenate([np.repeat(mask[:1], groups, axis=0), mask[1:]])  # the first frame fills its group
    tensor = torch.from_numpy(folded.reshape(latent_frames, groups, height, width).mean(axis=1))[None]
    pooled = torch.nn.functional.interpolate(tensor, size=(latent_height, latent_width), mode="area")
    return pooled.clamp(0, 1)


__all__ = ["hand_mask", "mouth_mask", "mouth_place"]
