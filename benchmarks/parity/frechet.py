"""FID and FVD beside the public programs, on the same random weights in the published layouts.

    pip install torch-fidelity pytorch-fid clean-fid torchvision einops tqdm
    git clone https://github.com/JunyaoHu/common_metrics_on_video_quality CHECKOUT
    python benchmarks/parity/frechet.py --common-metrics CHECKOUT

prints what, theirs, ours, their difference and the processor seconds of both, and exits 1 where a bound is broken.
`--only inception,resize,fid,fvd` runs some of the parts. Nothing is downloaded and the checkout is not written to.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import published  # noqa: E402  # the tests' random weights
from halign_bench.metrics.fid import frechet_distance  # noqa: E402
from peers import declare_torchvision  # noqa: E402

from halign_bench.extractors import _i3d_net  # noqa: E402
from halign_bench.extractors.i3d import I3DTorchScript, I3DVideoGPT  # noqa: E402
from halign_bench.extractors.inception import Inception, clean  # noqa: E402

PARTS = ("inception", "resize", "fid", "fvd")
FRAMES, VIDEOS, LENGTH = 5, 5, 10  # a side; of the videos, whose shortest allowed length is 10 there


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the processor seconds of all threads: other work on the machine does not count."""
    started = time.process_time()
    found = function()
    return found, time.process_time() - started


class Table:
    """Rows of the comparison; `broken` counts those outside of their bound."""

    def __init__(self) -> None:
        self.broken = 0
        print(f"{'what':58} {'theirs':>12} {'ours':>12} {'difference':>10} {'bound':>7} {'their s':>8} {'our s':>7}")

    def row(self, what: str, theirs: Any, ours: Any, bound: float | None, seconds: tuple[float, float]) -> None:
        """Numbers by relative difference; arrays by the largest difference over the mean size of theirs."""
        a, b = np.asarray(theirs, float), np.asarray(ours, float)
        difference = float(np.abs(a - b).max() / max(np.abs(a).mean(), 1e-300))
        bad = bound is not None and not difference <= bound
        self.broken += bad
        shown = [f"{x.mean():12.6g}" for x in (a, b)]
        limit = f"{bound:7.0e}" if bound is not None else "      -"
        print(
            f"{what:58} {shown[0]} {shown[1]} {difference:10.1e} {limit} {seconds[0]:8.2f} {seconds[1]:7.2f}"
            + ("  BROKEN" if bad else ""), flush=True,
        )  # fmt: skip


def pictures(count: int, height: int, width: int, seed: int) -> np.ndarray:
    """uint8 `[count, H, W, 3]`: smooth colours with edges and grain, in place of photographs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6 + seed % 3, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    smooth = smooth + 0.3 * (smooth > 0.6).float() + 0.05 * torch.randn(smooth.shape, generator=generator)
    return (smooth.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def inception_features(weights: Path, table: Table) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Features of two sets of frames by both sides: name -> [(theirs, ours)] for either set."""
    declare_torchvision()
    import pytorch_fid.inception
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    fidelity = FeatureExtractorInceptionV3("parity", ["2048"], feature_extractor_weights_path=str(weights))
    pytorch_fid.inception.load_state_dict_from_url = lambda *_, **__: torch.load(weights, weights_only=True)
    older = pytorch_fid.inception.InceptionV3([3]).eval()
    theirs = {"torch-fidelity": lambda x: fidelity(x)[0], "pytorch-fid": lambda x: older(x.float() / 255)[0][..., 0, 0]}
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for name, run in theirs.items():
        ours = Inception(weights, preprocessing=name)
        for seed, size in ((1, (180, 240)), (2, (512, 400))):
            images = torch.from_numpy(pictures(FRAMES, *size, seed)).permute(0, 3, 1, 2).contiguous()
            with torch.no_grad():
                a, their_seconds = timed(lambda: run(images).numpy())  # noqa: B023  # called at once
            b, our_seconds = timed(lambda: ours.images(images).numpy())  # noqa: B023
            what = f"Inception features, {name}, {FRAMES} frames of {size[0]}x{size[1]}"
            table.row(what, a, b, 1e-4, (their_seconds, our_seconds))
            found.setdefault(name, []).append((a, b))
    return found


def resized(table: Table) -> None:
    import PIL.Image
    from cleanfid.resize import build_resizer

    original = PIL.Image.fromarray
    PIL.Image.fromarray = lambda array, mode=None: original(array)  # newer Pillow takes no mode; it is F by its type
    resizer = build_resizer("clean")
    for size in ((180, 240), (512, 400)):
        frames = pictures(FRAMES, *size, seed=3)
        a, their_seconds = timed(lambda: np.stack([resizer(frame) for frame in frames]))  # noqa: B023
        b, our_seconds = timed(lambda: clean(torch.from_numpy(frames)).permute(0, 2, 3, 1).numpy() * 128 + 128)  # noqa: B023
        what = f"pixels, clean-fid, {FRAMES} frames of {size[0]}x{size[1]}"
        table.row(what, a, b, 1e-4, (their_seconds, our_seconds))
    PIL.Image.fromarray = original


def fid(features: dict[str, list[tuple[np.ndarray, np.ndarray]]], table: Table) -> None:
    import pytorch_fid.fid_score
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    def by_fidelity(sides: list[np.ndarray]) -> float:
        statistics = [fid_features_to_statistics(torch.from_numpy(side)) for side in sides]
        return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]

    def by_root(sides: list[np.ndarray]) -> float:
        moments = [m for side in sides for m in (side.mean(0), np.cov(side, rowvar=False))]
        return float(pytorch_fid.fid_score.calculate_frechet_distance(*moments))

    for name, theirs in (("torch-fidelity", by_fidelity), ("pytorch-fid", by_root)):
        pairs = features[name]
        a, their_seconds = timed(lambda: theirs([pair[0] for pair in pairs]))  # noqa: B023
        b, our_seconds = timed(lambda: frechet_distance(*(pair[1] for pair in pairs)))  # noqa: B023
        table.row(f"FID, {name}, from pixels", a, b, 1e-3, (their_seconds, our_seconds))


def fvd(checkout: Path, folder: Path, table: Table) -> None:
    shutil.copytree(checkout / "fvd", folder / "fvd")
    shutil.copy(checkout / "calculate_fvd.py", folder)
    weights = published.write_i3d(folder / "fvd" / "videogpt" / "i3d_pretrained_400.pt")
    script = published.write_torchscript(folder / "fvd" / "styleganv" / "i3d_torchscript.pt", _i3d_net.load(weights)[0])
    sys.path.insert(0, str(folder))
    from calculate_fvd import calculate_fvd

    sides = [
        np.stack([pictures(LENGTH, 96, 128, seed=seed + index) for index in range(VIDEOS)]) for seed in (10, 40)
    ]
    tensors = [torch.from_numpy(side).permute(0, 1, 4, 2, 3) for side in sides]  # [N, T, 3, H, W]
    floats = [side.float() / 255 for side in tensors]
    makers: dict[str, Callable[[], Any]] = {
        "styleganv": lambda: I3DTorchScript(script, trust=True, preprocessing="common-metrics", frames=LENGTH),
        "videogpt": lambda: I3DVideoGPT(weights, frames=LENGTH),
    }
    for method, make in makers.items():
        net = make()
        features, our_seconds = timed(lambda: [net.videos(side).numpy() for side in tensors])  # noqa: B023
        if method == "videogpt":
            from fvd.videogpt import fvd as theirs

            with torch.no_grad():
                loaded = theirs.load_i3d_pretrained()
                channels_first = [side.transpose(1, 2) for side in floats]
                found, their_seconds = timed(
                    lambda: [theirs.get_fvd_logits(side, loaded, "cpu") for side in channels_first]  # noqa: B023
                )
            for name, side, ours in zip(("first", "second"), found, features, strict=True):
                what = f"I3D logits, {method}, {name} set of {VIDEOS} x {LENGTH} frames"
                table.row(what, side.numpy(), ours, 1e-4, (their_seconds / 2, our_seconds / 2))
            a = theirs.frechet_distance(*(side.double() for side in found))
            b, seconds = timed(lambda: frechet_distance(*features))  # noqa: B023
            table.row(f"FVD, {method}, their distance in float64", a, b, 1e-3, (their_seconds, our_seconds + seconds))
            a = theirs.frechet_distance(*(side.clone() for side in found))
            table.row(f"FVD, {method}, their distance in float32 as it is", a, b, None, (0.0, seconds))
        else:
            a, their_seconds = timed(lambda: calculate_fvd(*floats, "cpu", method, only_final=True)["value"][0])  # noqa: B023
            b, seconds = timed(lambda: frechet_distance(*features))  # noqa: B023
            table.row(f"FVD, {method}, from pixels", a, b, 1e-3, (their_seconds, our_seconds + seconds))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--common-metrics", type=Path, help="checkout of common_metrics_on_video_quality")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if "fvd" in parts and options.common_metrics is None:
        parser.error("fvd needs --common-metrics CHECKOUT")
    table = Table()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "resize" in parts:
            resized(table)
        if "fvd" in parts:
            fvd(options.common_metrics, folder, table)
        if {"inception", "fid"} & set(parts):
            features = inception_features(published.write_inception(folder / "inception.pth"), table)
            if "fid" in parts:
                fid(features, table)
    print(f"{table.broken} bounds broken")
    return 1 if table.broken else 0


if __name__ == "__main__":
    sys.exit(main())
