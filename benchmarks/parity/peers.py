"""What the public programs need before they can be imported beside whatever torch is installed."""

from __future__ import annotations

import sys


def declare_torchvision() -> None:
    """Makes `import torchvision` work where it is of another build than torch: its operators are then only declared.

    The programs compared here import it and call none of them.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
