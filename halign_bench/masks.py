"""Where the hands are on the latent grid, from the skeleton that the clip was asked to follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from halign_bench.track import Clip

PADDING = 0.15  # of the hand's longer side, on each side: keypoints lie inside the fingers, not on their rim
VISIBLE = 0.3  # keypoints less visible than this do not stretch the box


def hand_mask(clip: Clip, latent_shape: tuple[int, int, int, int]) -> torch.Tensor:
    """fp32 `[1, T, H, W]` in [0, 1] on the latent grid: how much of each cell lies in a padded box around a hand.

    How published methods turn keypoints into a mask is not public; this one is ours: a box around the
    visible keypoints of each hand in each frame, padded, averaged over the area and the four frames of
    a latent cell (the first frame alone makes the first latent frame). Zero without a skeleton.
    """
    import numpy as np
    import torch

    _, latent_frames, latent_height, latent_width = latent_shape
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
    groups = (frames - 1) // (latent_frames - 1) if latent_frames > 1 else 1
    folded = np.concatenate([np.repeat(mask[:1], groups, axis=0), mask[1:]])  # the first frame fills its group
    tensor = torch.from_numpy(folded.reshape(latent_frames, groups, height, width).mean(axis=1))[None]
    pooled = torch.nn.functional.interpolate(tensor, size=(latent_height, latent_width), mode="area")
    return pooled.clamp(0, 1)


__all__ = ["hand_mask"]
