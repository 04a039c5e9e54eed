"""A folder of assets with random weights in the published layouts, taken on trust as a user without a network would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from halign_bench.assets.intake import add
from halign_bench.assets.store import Store

ALEX = ((0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3))
# torchmetrics brings LPIPS' linear weights with it. It is not imported: that fails beside torchvision of another build.
LINEAR = Path(str(find_spec("torchmetrics").origin)).parent / "functional" / "image" / "lpips_models"


def _inception(path: Path) -> None:
    from published import write_inception

    write_inception(path)


def _i3d(path: Path) -> None:
    from published import write_i3d, write_torchscript

    from halign_bench.extractors._i3d_net import load

    write_torchscript(path, load(write_i3d(path.with_suffix(".state")))[0])
    path.with_suffix(".state").unlink()


def _syncnet(path: Path) -> None:
    from sync_nets import syncnet_weights

    syncnet_weights(path)


def _s3fd(path: Path) -> None:
    from sync_nets import s3fd_weights

    s3fd_weights(path)


def _yolox(path: Path) -> None:
    import onnx_files

    onnx_files.yolox(path)


def _dwpose(path: Path) -> None:
    import onnx_files

    onnx_files.simcc(path)


def _buffalo(path: Path) -> None:
    import onnx_files

    onnx_files.buffalo_l(path)


def _linear(path: Path) -> None:
    path.write_bytes((LINEAR / "alex.pth").read_bytes())


def _alexnet(path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for number, out, given, side in ALEX:
        scale = (2 / (given * side * side)) ** 0.5
        state[f"features.{number}.weight"] = torch.randn(out, given, side, side, generator=generator) * scale
        state[f"features.{number}.bias"] = torch.randn(out, generator=generator) * 0.1
    torch.save(state, path)


MAKERS: dict[str, Callable[[Path], None]] = {
    "inception-fid": _inception, "i3d-torchscript": _i3d, "syncnet-v2": _syncnet, "s3fd": _s3fd, "yolox-l": _yolox,
    "dwpose-l": _dwpose, "insightface-buffalo-l": _buffalo, "lpips-alex": _linear, "alexnet": _alexnet,
}  # fmt: skip


def fill(folder: Path, names: Sequence[str] = tuple(MAKERS)) -> Path:
    """Makes these assets in `folder` and says that they are trusted."""
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder)
    for name in names:
        asset = store.asset(name)
        path = folder / asset.opens
        MAKERS[name](path)
        add(store, name, path, trust=True)
    return folder
