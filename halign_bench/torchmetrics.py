"""The metrics as torchmetrics: for others' training loops, with exact reduction over processes.

    from halign_bench.extractors.inception import Inception
    from halign_bench.torchmetrics import FrechetDistance

    inception = Inception(Path("pt_inception-2015-12-05-6726825d.pth"))
    fid = FrechetDistance(inception.images, inception.dimensions)
    fid.update(images, real=True)  # uint8 [N, 3, H, W]
    fid.update(samples, real=False)
    fid.compute()

The states are sums in float64 (of features and their outer products), so that what several processes give together
is what one would give, and not an average of averages. `FVD` differs by its extractor alone (`I3DVideoGPT.videos`).
Whatever scores one clip, `sync_scores` or `hand_confidence` for example, becomes a metric of many by `ClipMean`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from halign_bench.metrics.fid import frechet_distance_from_moments
from halign_bench.metrics.kid import kernel_distance

Features = Callable[[Tensor], Tensor]


class _Distance(Metric):
    """What both distances share: features of two sets, told apart by `real`, the real ones perhaps kept over resets."""

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    def __init__(
        self, features: Features | None, dimensions: int, reset_real_features: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if dimensions < 1:
            raise ValueError(f"{dimensions} dimensions: at least 1 is needed")
        self.features, self.dimensions, self.reset_real_features = features, dimensions, reset_real_features

    def update(self, inputs: Tensor, real: bool) -> None:
        """Takes features `[n, D]`, or whatever the extractor turns into them. Raises ValueError on any other shape."""
        with torch.no_grad():
            found = inputs if self.features is None else self.features(inputs)
        if found.ndim != 2 or found.shape[1] != self.dimensions:
            raise ValueError(f"features [n, {self.dimensions}] expected, not {tuple(found.shape)}")
        if not torch.isfinite(found).all():
            raise ValueError("features contain NaN or infinite values")
        self._add(found.detach().to(self.device, torch.float64), "real" if real else "fake")

    def reset(self) -> None:
        names = () if self.reset_real_features else [name for name in self._defaults if name.startswith("real")]
        values = {name: getattr(self, name) for name in names}
        kept = {n: list(v) if isinstance(v, list) else v for n, v in values.items()}  # a reset empties lists in place
        super().reset()
        for name, value in kept.items():
            setattr(self, name, value)

    def set_dtype(self, dst_type: Any) -> _Distance:
        """Leaves the states in float64: in single precision, sums of products lose the covariance."""
        return self

    def _add(self, features: Tensor, side: str) -> None:
        raise NotImplementedError


class FrechetDistance(_Distance):
    """Fréchet distance of Gaussians fitted to two sets of features, see `frechet_distance`: FID, and FVD.

    features             turns what `update` is given into `[n, D]`; None when it is given features
    dimensions           D: 2048 for Inception, 400 for I3D
    reset_real_features  False keeps the real side over `reset`

    `compute` gives a float64 scalar of at least 0, and raises ValueError with fewer than two samples on a side. Memory
    is 2 D² numbers, whatever the number of samples. With fewer samples than dimensions covariances are singular, and
    the value agrees with `frechet_distance` on the features themselves to about six digits.
    """

    plot_lower_bound = 0.0

    def __init__(
        self, features: Features | None = None, dimensions: int = 2048, reset_real_features: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(features, dimensions, reset_real_features, **kwargs)
        for side in ("real", "fake"):
            self.add_state(f"{side}_count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{side}_sum", torch.zeros(dimensions, dtype=torch.float64), dist_reduce_fx="sum")
            outer = torch.zeros(dimensions, dimensions, dtype=torch.float64)
            self.add_state(f"{side}_outer", outer, dist_reduce_fx="sum")

    def _add(self, features: Tensor, side: str) -> None:
        for name, value in (("count", len(features)), ("sum", features.sum(0)), ("outer", features.T @ features)):
            setattr(self, f"{side}_{name}", getattr(self, f"{side}_{name}") + value)

    def compute(self) -> Tensor:
        moments = [*self._moments("fake"), *self._moments("real")]
        return torch.tensor(frechet_distance_from_moments(*moments), dtype=torch.float64, device=self.device)

    def _moments(self, side: str) -> tuple[np.ndarray, np.ndarray]:
        count = float(getattr(self, f"{side}_count"))
        if count < 2:
            raise ValueError(f"{count:.0f} {side} samples: a Fréchet distance needs at least two on each side")
        mean = (getattr(self, f"{side}_sum") / count).cpu().numpy()
        outer = getattr(self, f"{side}_outer").cpu().numpy()
        return mean, (outer - count * np.outer(mean, mean)) / (count - 1)


class KernelDistance(_Distance):
    """Unbiased squared MMD with the polynomial kernel of degree 3, see `kernel_distance`: KID.

    Arguments as of `FrechetDistance`. A kernel of degree 3 is no function of sums that are smaller than the features,
    so these are kept, `[n, D]` in float64, and gathered from all processes; all samples are used, no random subsets.
    `compute` raises ValueError with fewer than two samples on a side.
    """

    real_features: list[Tensor]
    fake_features: list[Tensor]

    def __init__(
        self, features: Features | None = None, dimensions: int = 2048, reset_real_features: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(features, dimensions, reset_real_features, **kwargs)
        for side in ("real", "fake"):
            self.add_state(f"{side}_features", [], dist_reduce_fx="cat")

    def _add(self, features: Tensor, side: str) -> None:
        getattr(self, f"{side}_features").append(features)

    def compute(self) -> Tensor:
        sides = [self._gathered("fake"), self._gathered("real")]
        return torch.tensor(kernel_distance(*sides), dtype=torch.float64, device=self.device)

    def _gathered(self, side: str) -> np.ndarray:
        kept = getattr(self, f"{side}_features")  # a list, or one tensor once gathered
        if isinstance(kept, Tensor):
            kept = [kept]
        return torch.cat(kept).cpu().numpy() if kept else np.zeros((0, self.dimensions))


class ClipMean(Metric):
    """Mean over clips of a function that scores one, see `halign_bench.metrics`.

        confidence = ClipMean(lambda video, audio: sync_scores(video, audio).confidence)
        confidence.update(video_embeddings, audio_embeddings)  # of one clip; arrays or tensors

    function  of what `update` is given, tensors as arrays; a number, or None where a clip cannot be scored

    `compute` gives a float64 scalar; clips without a score do not count, and their number is `unscored`. Raises
    ValueError from `update` for a score that is not finite, and from `compute` when there is no score at all.
    """

    is_differentiable = False
    full_state_update = False
    total: Tensor
    scored: Tensor
    unscored: Tensor

    def __init__(self, function: Callable[..., float | None], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function
        for name in ("total", "scored", "unscored"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, *clip: Any) -> None:
        arrays = [part.detach().cpu().numpy() if isinstance(part, Tensor) else part for part in clip]
        score = self.function(*arrays)
        if score is None:
            self.unscored = self.unscored + 1
            return
        if not np.isfinite(score):
            raise ValueError(f"a clip's score is {score}; give None for what cannot be measured")
        self.total, self.scored = self.total + float(score), self.scored + 1

    def compute(self) -> Tensor:
        if not self.scored:
            raise ValueError(f"no clip was scored, of {self.unscored:.0f} given")
        return self.total / self.scored

    def set_dtype(self, dst_type: Any) -> ClipMean:
        """Leaves the sums in float64."""
        return self
