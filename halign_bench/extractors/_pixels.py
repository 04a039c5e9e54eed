"""What all extractors of pixels share: the check of their range, batches, and arithmetic without shortcuts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor


def checked_frames(frames: np.ndarray) -> np.ndarray:
    """Frames as they are when they are uint8 `[T, H, W, 3]`, else ValueError.

    Floats are refused rather than guessed at: [0, 1] taken for [-1, 1] gives a plausible and wrong distance.

    >>> checked_frames(np.zeros((1, 2, 2, 3), np.float32))
    Traceback (most recent call last):
    ValueError: frames are uint8 [T, H, W, 3] with values 0 to 255, not float32 (1, 2, 2, 3)
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape[1:]:
        raise ValueError(f"frames are uint8 [T, H, W, 3] with values 0 to 255, not {frames.dtype} {frames.shape}")
    return frames


def checked_images(images: Tensor, dimensions: int) -> Tensor:
    """Tensors as they are when they are uint8 `[…, 3, H, W]` of that many dimensions, else ValueError."""
    if images.dtype != torch.uint8 or images.ndim != dimensions or images.shape[-3] != 3 or 0 in images.shape[-2:]:
        form = {4: "[N, 3, H, W]", 5: "[N, T, 3, H, W]"}[dimensions]
        raise ValueError(f"uint8 {form} with values 0 to 255 expected, not {images.dtype} {tuple(images.shape)}")
    return images


def batched(pieces: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Concatenates tensors `[n, …]` in their order into batches of `size`; a change of shape begins another one.

    >>> [len(batch) for batch in batched([torch.zeros(3, 1), torch.zeros(4, 1), torch.zeros(1, 2)], 4)]
    [4, 3, 1]
    """
    waiting: list[Tensor] = []
    for piece in pieces:
        if waiting and waiting[0].shape[1:] != piece.shape[1:]:
            yield torch.cat(waiting)
            waiting = []
        while len(piece):
            room = size - sum(map(len, waiting))
            waiting.append(piece[:room])
            piece = piece[room:]
            if sum(map(len, waiting)) == size:
                yield torch.cat(waiting)
                waiting = []
    if waiting:
        yield torch.cat(waiting)


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """No gradients, and on a GPU no TF32, whose ten bits of mantissa move features by 1e-3."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
