"""Small nets in the layouts of the published ONNX files: the same inputs, outputs, names and shapes, little inside.

Given weights (`seed=None`) see what a test has drawn: persons and faces where it is red. Random ones see noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PERSON, FACE = (200.0, 260.0), 40.0  # sides of what is found at each red cell, pixels of the net's input
STRIDES = (8, 16, 32)


class Graph:
    """Nodes and weights on the way into a file."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str | np.ndarray, **attributes: object) -> str:
        """Appends a node and returns the name of its output; arrays become weights."""
        names = []
        for value in inputs:
            if isinstance(value, np.ndarray):
                self.weights.append(numpy_helper.from_array(value, f"w{len(self.weights)}"))
                value = self.weights[-1].name
            names.append(value)
        output = str(attributes.pop("output", f"n{len(self.nodes)}"))
        self.nodes.append(helper.make_node(kind, names, [output], name=f"node{len(self.nodes)}", **attributes))
        return output

    def save(
        self, path: Path, given: tuple[str, Sequence[object]], outputs: Sequence[tuple[str, Sequence[object]]]
    ) -> Path:
        value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
        graph = helper.make_graph(
            self.nodes, path.stem, [value(*given)], [value(*output) for output in outputs], self.weights
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


def _convolution(seed: int | None, out: int, scale: float, weight: np.ndarray, bias: np.ndarray) -> list[np.ndarray]:
    """1×1 convolution of three colours: random ones of that scale, or those given."""
    if seed is None:
        return [weight.astype(np.float32).reshape(out, 3, 1, 1), bias.astype(np.float32)]
    rng = np.random.default_rng(seed)
    return [
        rng.normal(0, scale, (out, 3, 1, 1)).astype(np.float32), rng.normal(0, 0.5, out).astype(np.float32),
    ]  # fmt: skip


def _red(scale: float, red: int) -> np.ndarray:
    """Weights of one output `[3]` that is large for red and not for grey: (red - the mean of the others) · scale."""
    weight = np.full(3, -scale / 2)
    weight[red] = scale
    return weight


def yolox(path: Path, seed: int | None = None, red: int = 0) -> Path:
    """`yolox_l.onnx`: images `[1, 3, 640, 640]` → output `[1, 8400, 85]`, boxes undecoded.

    Without a seed each cell of the coarsest grid that is red sees a person of `PERSON` around it; `red` says which
    channel that colour comes in.
    """
    graph = Graph()
    grids = []
    for stride in STRIDES:
        pooled = graph.add("AveragePool", "images", kernel_shape=[stride] * 2, strides=[stride] * 2)
        weight, bias = np.zeros((85, 3)), np.zeros(85)
        weight[4], bias[4] = _red(0.05, red), -5.0 if stride == 32 else -99.0
        bias[0:4] = [0.5, 0.5, *np.log(np.divide(PERSON, stride))]
        bias[5] = 4.0
        weight[6], bias[6] = _red(-0.05, red), 2.0  # another class, sure of itself where nothing is red
        weights = _convolution(None if seed is None else seed + stride, 85, 0.006, weight, bias)
        if seed is not None:
            weights[1][4:] += [1.0, 1.0] + [-8.0] * 79  # what is found are persons, as in videos
        raw = graph.add("Conv", pooled, *weights)
        boxes, scores = graph.add("Slice", raw, np.int64([0]), np.int64([4]), np.int64([1])), graph.add(
            "Sigmoid", graph.add("Slice", raw, np.int64([4]), np.int64([85]), np.int64([1]))
        )
        grids.append(graph.add("Reshape", graph.add("Concat", boxes, scores, axis=1), np.int64([1, 85, -1])))
    graph.add("Transpose", graph.add("Concat", *grids, axis=2), perm=[0, 2, 1], output="output")
    return graph.save(path, ("images", [1, 3, 640, 640]), [("output", [1, 8400, 85])])


def yolox_with_suppression(path: Path, boxes: np.ndarray, labels: np.ndarray | None = None) -> Path:
    """Layout of rtmlib's detectors: input → dets `[1, n, 5]`, and labels where given: always these boxes."""
    graph = Graph()
    nothing = graph.add("Mul", graph.add("ReduceMean", "input", axes=[0, 1, 2, 3], keepdims=0), np.array(0, np.float32))
    graph.add("Add", boxes[None].astype(np.float32), nothing, output="dets")
    outputs: list[tuple[str, Sequence[object]]] = [("dets", [1, len(boxes), 5])]
    if labels is not None:
        graph.add("Add", labels[None].astype(np.float32), nothing, output="labels")
        outputs.append(("labels", [1, len(boxes)]))
    return graph.save(path, ("input", [1, 3, 640, 640]), outputs)


def simcc(path: Path, seed: int | None = None, count: int = 133, red: int = 0) -> Path:
    """`dw-ll_ucoco_384.onnx`: input `[N, 3, 384, 288]` → simcc_x `[N, 133, 576]`, simcc_y `[N, 133, 768]`.

    Without a seed every keypoint is at the first of the reddest columns and rows, the more certain the redder.
    """
    graph = Graph()
    for axis, name, bins in ((2, "simcc_x", 576), (3, "simcc_y", 768)):
        random = None if seed is None else seed + axis
        seen = graph.add("Conv", "input", *_convolution(random, 3, 1.0, np.tile(_red(0.2, red), (3, 1)), np.zeros(3)))
        most = graph.add("ReduceMax", seen, axes=[axis], keepdims=1)
        weights = _convolution(random, count * 2, 0.4, np.full((count * 2, 3), 1 / 3), np.zeros(count * 2))
        raw = graph.add("Reshape", graph.add("Conv", most, *weights), np.int64([0, count, 2, bins // 2]))
        graph.add(
            "Reshape", graph.add("Transpose", raw, perm=[0, 1, 3, 2]), np.int64([0, count, bins]), output=name
        )
    return graph.save(
        path, ("input", ["batch", 3, 384, 288]),
        [("simcc_x", ["batch", count, 576]), ("simcc_y", ["batch", count, 768])],
    )  # fmt: skip


def buffalo_l(folder: Path, seed: int | None = None) -> Path:
    """A folder with `det_10g.onnx` (nine outputs, two anchors a cell) and `w600k_r50.onnx` (512 numbers a face).

    Without a seed each cell of the coarsest grid that is red sees a face of `FACE` around it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    graph = Graph()
    names = {"score": ("448", "471", "494"), "box": ("451", "474", "497"), "points": ("454", "477", "500")}
    outputs: dict[str, list[object]] = {}
    for level, stride in enumerate(STRIDES):
        pooled = graph.add("AveragePool", "input.1", kernel_shape=[stride] * 2, strides=[stride] * 2)
        half = FACE / 2 / stride
        eyes = np.array([[-0.4, -0.4], [0.4, -0.4], [0.0, 0.1], [-0.3, 0.5], [0.3, 0.5]]).ravel() * half
        for number, (kind, width, given) in enumerate(
            (("score", 1, [0.0]), ("box", 4, np.full(4, half)), ("points", 10, eyes))
        ):
            weight, bias = np.zeros((2 * width, 3)), np.tile(given, 2)
            if kind == "score":
                weight[:], bias[:] = _red(6.0, 0), -5.0 if stride == 32 else -99.0
            random = None if seed is None else seed + 10 * level + number
            raw = graph.add("Conv", pooled, *_convolution(random, 2 * width, 1.0, weight, bias))
            raw = graph.add("Relu", raw) if kind == "box" else graph.add("Sigmoid", raw) if kind == "score" else raw
            rows = graph.add("Transpose", raw, perm=[0, 2, 3, 1])
            graph.add("Reshape", rows, np.int64([-1, width]), output=names[kind][level])
            outputs[names[kind][level]] = [(640 // stride) ** 2 * 2, width]
    graph.save(
        folder / "det_10g.onnx", ("input.1", [1, 3, "?", "?"]),
        [(name, outputs[name]) for kind in ("score", "box", "points") for name in names[kind]],
    )  # fmt: skip
    graph = Graph()
    pooled = graph.add("Flatten", graph.add("AveragePool", "input.1", kernel_shape=[16] * 2, strides=[16] * 2))
    weights = np.random.default_rng(seed or 0).normal(0, 1, (147, 512)).astype(np.float32)
    graph.add("Gemm", pooled, weights, np.zeros(512, np.float32), output="683")
    graph.save(folder / "w600k_r50.onnx", ("input.1", ["None", 3, 112, 112]), [("683", ["None", 512])])
    return folder
