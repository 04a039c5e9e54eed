"""Weights in the layouts in which they are published or saved, each opened by the code that opens the real ones."""

from __future__ import annotations

import io
import pickle
import random
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing.guarding import Escaped
from fuzzing.mutating import damaged
from fuzzing.worker import Input

TESTS = Path(__file__).resolve().parents[2] / "tests"
STATES = ("s3fd.pth", "syncnet.pth", "inception.pth", "i3d.pth", "linear.pth", "checkpoint.pt")
CANARY = "opened-and-run"


class Runs:
    """What a pickle does when it is opened as one: writes a file outside of the case's folder."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        import os

        return os.system, (f"touch ../{CANARY}",)


def forbidden(*arguments: Any, **named: Any) -> None:
    """In the place of torch.jit.load, which nobody asked for."""
    raise Escaped("TorchScript was opened")


def flat(layout: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Tensors of these shapes that lie in one number each: the layout of a large file in a small one."""
    import torch

    return {name: torch.tensor(0.5).expand(shape) for name, shape in layout.items()}


def saved(value: Any, legacy: bool = False) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


class Weights:
    """One file of a layout, damaged, swapped with another one's, or with code in it."""

    def seeds(self, scratch: Path, clips: Path | None) -> list[Input]:
        import torch

        sys.path.insert(0, str(TESTS))
        from tiny import TinyBackbone

        from halign_bench.adapters import WEIGHTS, attach_lora, remove_adapters, save_adapters
        from halign_bench.extractors import _i3d_net, _inception_net
        from halign_bench.extractors.s3fd import S3FD
        from halign_bench.extractors.syncnet import SyncNet
        from halign_bench.samples import SampleStore

        self.nets = {"s3fd.pth": S3FD(), "syncnet.pth": SyncNet()}
        layouts = {name: {k: tuple(v.shape) for k, v in net.state_dict().items()} for name, net in self.nets.items()}
        layouts |= {"inception.pth": _inception_net.published_layout(), "i3d.pth": _i3d_net.published_layout()}
        layouts["linear.pth"] = {f"lin{n}.model.1.weight": (1, c, 1, 1) for n, c in enumerate((64, 192, 384, 256, 256))}
        made: Input = {}
        for name, layout in layouts.items():
            made[name] = saved(flat(layout))
            made[f"legacy-{name}"] = saved(flat(layout), legacy=True)
        shapes = ((0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3))
        alex = {f"features.{n}.weight": (out, given, side, side) for n, out, given, side in shapes}
        self.alexnet = saved(flat(alex | {f"features.{n}.bias": (out,) for n, out, _, _ in shapes}))
        state = {"fingerprint": "x", "state": {"stage": 0, "step": 1}, "optimizer": {}, "adapters": {"a": {}}}
        made["checkpoint.pt"] = saved(state)
        script = io.BytesIO()
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)
        made["script.pt"] = script.getvalue()
        made |= {"simcc.onnx": self._onnx(scratch, "simcc"), "person.onnx": self._onnx(scratch, "person")}
        self.backbone = TinyBackbone()
        attach_lora(self.backbone.denoiser, "lora", list(self.backbone.lora_targets), 2, 2.0, seed=0)
        save_adapters(self.backbone.denoiser, ["lora"], scratch / "adapters")
        remove_adapters(self.backbone.denoiser, ["lora"])
        made["lora.safetensors"] = (scratch / "adapters" / "lora" / WEIGHTS).read_bytes()
        store = SampleStore(scratch, [["clip"]], 0)
        store.write(0, 4, np.zeros((1, 2, 4, 4, 3), np.uint8), 1.0)
        made["samples.npz"] = store.path(0, 4).read_bytes()
        buffer = io.BytesIO()
        np.save(buffer, np.zeros((3, 4), np.float32))
        made["features.npy"] = buffer.getvalue()
        found = [{name.removeprefix("legacy-"): content, "kind": name.removeprefix("legacy-").encode()}
                 for name, content in made.items()]  # fmt: skip
        torch.jit.load = torch.jit._serialization.load = forbidden
        for seed in found:  # each as it is must be taken, but what is code
            folder = scratch / "whole"
            folder.mkdir(exist_ok=True)
            for name, content in seed.items():
                (folder / name).write_bytes(content)
            if seed["kind"] != b"script.pt":
                self.run(folder)
        return found

    def _onnx(self, scratch: Path, kind: str) -> bytes:
        """A keypoint net with the outputs of the published one and a small input; a detector likewise."""
        from onnx_files import Graph

        graph = Graph()
        if kind == "simcc":
            pooled = graph.add("ReduceMean", "input", axes=[1, 2, 3], keepdims=0)
            for name, bins in (("simcc_x", 16), ("simcc_y", 32)):
                row = graph.add("Reshape", pooled, np.int64([-1, 1, 1]))
                graph.add("Mul", row, np.ones((1, 133, bins), np.float32), output=name)
            outputs = [("simcc_x", ["batch", 133, 16]), ("simcc_y", ["batch", 133, 32])]
            return graph.save(scratch / "x.onnx", ("input", ["batch", 3, 16, 8]), outputs).read_bytes()
        pooled = graph.add("ReduceMean", "images", axes=[0, 1, 2, 3], keepdims=0)
        graph.add("Mul", np.ones((1, 21, 85), np.float32), pooled, output="output")
        return graph.save(scratch / "x.onnx", ("images", [1, 3, 32, 32]), [("output", [1, 21, 85])]).read_bytes()

    def change(self, seeds: list[Input], rng: random.Random) -> Input:
        made = dict(rng.choice(seeds))
        kind = made["kind"].decode()
        action = rng.random()
        if action < 0.06:
            made[kind] = self._code(rng)
        elif action < 0.1:
            other = rng.choice(seeds)
            made[kind] = other[other["kind"].decode()]
        elif action < 0.45 and made[kind][:2] == b"PK":
            made[kind] = self._inside(made[kind], rng)
        else:
            made[kind] = damaged(made[kind], rng)
        return made

    def _code(self, rng: random.Random) -> bytes:
        """Pickles that run something, bare and in what torch saves."""
        which = rng.randrange(4)
        if which == 0:
            return pickle.dumps(Runs(), protocol=rng.choice((0, 2, 4)))
        if which == 1:
            return pickle.dumps({"features.0.weight": Runs()})
        if which == 2:
            buffer = io.BytesIO()
            array = np.empty(1, object)
            array[0] = Runs()
            np.save(buffer, array, allow_pickle=True)
            return buffer.getvalue()
        return saved({"x": Runs()}, legacy=rng.random() < 0.5)

    def _inside(self, content: bytes, rng: random.Random) -> bytes:
        """An entry of a zip, damaged, in a zip that is whole: checksums do not hide it."""
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            entries = [(about.filename, file.read(about)) for about in file.infolist()]
        chosen = next((n for n, (name, _) in enumerate(entries) if name.endswith("data.pkl")), 0)
        if rng.random() < 0.3:
            chosen = rng.randrange(len(entries))
        entries[chosen] = entries[chosen][0], damaged(entries[chosen][1], rng)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for name, data in entries:
                file.writestr(name, data)
        return buffer.getvalue()

    def run(self, folder: Path) -> None:
        kind = (folder / "kind").read_text()
        path = folder / kind
        try:
            self._open(kind, path, folder)
        finally:
            if (folder.parent / CANARY).exists() or (Path.cwd().parent / CANARY).exists():
                raise AssertionError("code in the file was run")

    def _open(self, kind: str, path: Path, folder: Path) -> None:
        from halign_bench.adapters import WEIGHTS, load_adapters, remove_adapters
        from halign_bench.checkpoints import Checkpoints
        from halign_bench.extractors import _i3d_net, _inception_net
        from halign_bench.extractors.checkpoint import load_published
        from halign_bench.extractors.i3d import I3DTorchScript
        from halign_bench.extractors.lpips import LPIPSAlex
        from halign_bench.extractors.person import PersonDetector
        from halign_bench.extractors.simcc import KeypointNet
        from halign_bench.samples import SampleStore
        from halign_bench.scoring.cache import Cache

        frames = np.zeros((2, 20, 20, 3), np.uint8)
        if kind in self.nets:
            load_published(self.nets[kind], path, kind)
        elif kind == "inception.pth":
            _inception_net.load(path)
        elif kind == "i3d.pth":
            _i3d_net.load(path)
        elif kind == "linear.pth":
            (folder / "alexnet.pth").write_bytes(self.alexnet)
            LPIPSAlex(path, folder / "alexnet.pth")
        elif kind == "script.pt":
            I3DTorchScript(path, sha256="0" * 64)
            raise AssertionError("TorchScript was opened without being asked for")
        elif kind == "simcc.onnx":
            KeypointNet(path, "cpu", "dwpose")(list(frames), np.array([[2.0, 2, 15, 15]] * 2))
        elif kind == "person.onnx":
            PersonDetector(path, "cpu", 0.3)(list(frames))
        elif kind == "lora.safetensors":
            place = folder / "adapters" / "lora"
            place.mkdir(parents=True, exist_ok=True)
            path.replace(place / WEIGHTS)
            try:
                load_adapters(self.backbone.denoiser, folder / "adapters")
            finally:
                remove_adapters(self.backbone.denoiser)
        elif kind == "checkpoint.pt":
            Checkpoints(folder, "x").load()
        elif kind == "samples.npz":
            store = SampleStore(folder, [["clip"]], 0)
            path.replace(store.path(0, 4))
            store.read(0, 4)
        else:
            place = folder / "fe" / "feature.npy"
            place.parent.mkdir(exist_ok=True)
            path.replace(place)
            found = Cache(folder).get("feature")
            np.array(found) if isinstance(found, np.ndarray) else None


TARGETS = {"weights": Weights}
