"""Nets in ONNX files, run by onnxruntime, and the packages that only extractors need."""

from __future__ import annotations

import hashlib
import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from halign_bench.decoding import shown
from halign_bench.errors import RequestError, first_line


def needed(package: str, what: str) -> Any:
    """The imported package. Raises RequestError when it is not installed; `what` says who needs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        reason = str(error).partition(". ")[0]
        raise RequestError(f'{what} need {package} ({reason}): pip install "halign-bench[score]"') from None


def providers(device: str, what: str) -> list[Any]:
    """What onnxruntime runs a net with, of "cpu", "cuda" or "cuda:1". Raises RequestError where it cannot."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return ["CPUExecutionProvider"]
    available = needed("onnxruntime", what).get_available_providers()
    if kind == "cuda" and "CUDAExecutionProvider" in available:
        return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), "CPUExecutionProvider"]
    raise RequestError(f"{what} cannot run on {device}: this onnxruntime has {', '.join(available)}")


def session_options(what: str) -> Any:
    """Quiet, and with as many threads as OMP_NUM_THREADS says, which onnxruntime's own pool does not read."""
    options = needed("onnxruntime", what).SessionOptions()
    options.log_severity_level = 3
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal():
        options.intra_op_num_threads = int(threads)
    return options


class OnnxNet:
    """One file, opened.

    sha256   of the bytes that were opened
    size     (height, width) of its input, None where the file leaves them free
    outputs  shapes of its outputs as the file states them
    """

    def __init__(self, path: Path, device: str, what: str) -> None:
        """`what` is what the file should be, in the plural, for messages. Raises RequestError when it is not."""
        runtime = needed("onnxruntime", what)
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise RequestError(f"{what} cannot be read from {shown(path)}: {error.strerror or error}") from None
        self.path, self.sha256 = Path(path), hashlib.sha256(content).hexdigest()
        chosen = providers(device, what)
        try:
            self.session = runtime.InferenceSession(  # whose fallback prints on stdout that it tries the same again
                content, sess_options=session_options(what), providers=chosen, enable_fallback=0
            )
        except Exception as error:  # onnxruntime's own classes share no base
            raise RequestError(f"{shown(path)} cannot be opened as an ONNX file: {first_line(error)}") from None
        if device != "cpu" and self.session.get_providers()[0] == "CPUExecutionProvider":
            raise RequestError(f"{shown(path)} cannot be run on {device}: onnxruntime fell back to the processor")
        try:  # names in them are decoded when they are asked for
            given, makes = self.session.get_inputs(), self.session.get_outputs()
            shape, self.outputs = given[0].shape, [list(output.shape) for output in makes]
        except (UnicodeDecodeError, IndexError):
            raise RequestError(f"{shown(path)} cannot be used: what it says of its outputs is damaged") from None
        if not self.outputs:
            raise RequestError(f"{shown(path)} has no output")
        if len(given) != 1 or len(shape) != 4 or shape[1] != 3:
            raise RequestError(f"{shown(path)} does not take one batch of RGB pictures [N, 3, H, W], but {shape}")
        self._input, self._batched = given[0].name, not isinstance(shape[0], int)
        self.size = (shape[2], shape[3]) if isinstance(shape[2], int) and isinstance(shape[3], int) else None

    def __call__(self, pictures: np.ndarray) -> list[list[np.ndarray]]:
        """All outputs of each picture of float32 `[N, 3, H, W]`, together where the file's batch is free.

        Raises RequestError for a net that fails on them.
        """
        step = max(len(pictures), 1) if self._batched else 1
        found = []
        for start in range(0, len(pictures), step):
            batch = np.ascontiguousarray(pictures[start : start + step])
            try:
                outputs = self.session.run(None, {self._input: batch})
            except Exception as error:  # onnxruntime's own classes share no base
                raise RequestError(
                    f"{shown(self.path)} fails on {list(batch.shape)} pictures: {first_line(error)}"
                ) from None
            found += [[output[row] for output in outputs] for row in range(len(batch))]
        return found
