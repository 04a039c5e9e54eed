"""OpenCV, with whose resizing and colours the published face pipeline was made; imported when first needed."""

from __future__ import annotations

from typing import Any

from halign_bench.errors import RequestError


def opencv() -> Any:
    """The module `cv2`. Raises RequestError when it is not installed."""
    try:
        import cv2
    except ImportError:
        raise RequestError('face tracks need OpenCV: pip install "halign-bench[score]"') from None
    return cv2
