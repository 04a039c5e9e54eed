"""Trains the evaluators, measures them on held-out people, and writes weights and model card.

    python -m halign_bench.tracks.puppet.train_evaluators --work DIR

Stopped at any moment and started again with the same DIR it goes on from its last checkpoint; step k
draws its numbers from (seed, net, k) alone.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from halign_bench.atomic import atomic_path
from halign_bench.progress import Progress
from halign_bench.tracks.puppet import evaluator_data as data
from halign_bench.tracks.puppet import evaluator_losses as losses
from halign_bench.tracks.puppet import nets
from halign_bench.tracks.puppet.clips import VERSION
from halign_bench.tracks.puppet.evaluators import WEIGHTS

SEED = 20
CLIPS, HANDS, PEOPLE = 5000, 3000, 5000
STEPS = {"sync": 2400, "hands": 1200, "identity": 800, "frame": 1200, "clip": 2000}
RATES = {"sync": 2e-3, "hands": 2e-3, "identity": 2e-3, "frame": 2e-3, "clip": 1.5e-3}
SAVE_EVERY = 100


def build(name: str) -> nn.Module:
    makers: dict[str, Callable[[], nn.Module]] = {
        "sync": nets.SyncNet,
        "hands": nets.HandNet,
        "identity": nets.IdentityNet,
        "frame": lambda: nets.FrameNet(targets=losses.FRAME_TARGETS),
        "clip": lambda: nets.ClipNet(targets=losses.CLIP_TARGETS),
    }
    torch.manual_seed(SEED)
    net = makers[name]()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return net


def fit(
    name: str, loss: Callable[[Any, np.random.Generator], torch.Tensor], steps: int, work: Path, progress: Progress
) -> nn.Module:
    """Trains one net, going on from `work`; returns it in evaluation mode."""
    net = build(name)
    trained = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=RATES[name], weight_decay=0.02)
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{name}.pt"
    start, seconds, recent = 0, 0.0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        if state["steps"] == steps:
            net.load_state_dict(state["net"])
            optimiser.load_state_dict(state["optimiser"])
            start, seconds, recent = state["step"], state["seconds"], state["loss"]
    net.train()
    with progress.phase(f"training {name}", steps) as phase:
        phase.already(start)
        for step in range(start, steps):
            began = time.monotonic()
            rng = np.random.default_rng((SEED, list(STEPS).index(name), step))
            torch.manual_seed(int(rng.integers(2**62)))
            rate = RATES[name] * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-6
            for group in optimiser.param_groups:
                group["lr"] = rate
            with torch.autocast("cpu", torch.bfloat16):
                value = loss(net, rng)
            optimiser.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            recent = 0.98 * recent + 0.02 * float(value.detach()) if step else float(value.detach())
            seconds += time.monotonic() - began
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
                state = {
                    "net": net.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1, "steps": steps,
                    "seconds": seconds, "loss": recent,
                }  # fmt: skip
                with atomic_path(path) as temporary:
                    torch.save(state, temporary)
            phase.advance()
    progress.say(f"{name}: {steps} steps, {seconds:.0f} s, loss {recent:.4f}")
    return net.eval()


def standardise(net: nets.FrameNet | nets.ClipNet, raw: torch.Tensor) -> None:
    """Features of mean 0 and deviation 1 over clean training data."""
    net.mean.copy_(raw.mean(0))
    net.std.copy_(raw.std(0).clamp(min=1e-3))


def train(work: Path, out: Path, console: Console) -> dict[str, Any]:
    """The whole of it: render, train, measure, write. Returns the card's numbers."""
    work.mkdir(parents=True, exist_ok=True)
    progress = Progress(console)
    split = "evaluator-train"
    loaded = {}
    for kind, count in (("clips", CLIPS), ("hands", HANDS), ("people", PEOPLE)):
        with progress.phase(f"rendering {kind}", count) as phase:
            loaded[kind] = data.load(split, kind, count, work, phase.advance)
    clips, hands, people = loaded["clips"], loaded["hands"], loaded["people"]
    trained = {
        "sync": fit("sync", losses.SyncLoss(clips), STEPS["sync"], work, progress),
        "hands": fit("hands", losses.HandLoss(clips, hands), STEPS["hands"], work, progress),
        "identity": fit("identity", losses.IdentityLoss(people), STEPS["identity"], work, progress),
    }
    frame = fit("frame", losses.FrameLoss(clips, hands), STEPS["frame"], work, progress)
    assert isinstance(frame, nets.FrameNet)
    with torch.inference_mode():
        standardise(frame, torch.cat([frame.raw(losses.pixels(video[::6])) for video in clips["video"][:1000]]))
    sort_of_clips = losses.ClipLoss(clips, frame)
    clip = fit("clip", sort_of_clips, STEPS["clip"], work, progress)
    assert isinstance(clip, nets.ClipNet)
    with torch.inference_mode():
        standardise(clip, clip.raw(sort_of_clips.features[0, :, data.ROOM : data.ROOM + losses.FRAMES]))
    trained |= {"frame": frame, "clip": clip}
    from halign_bench.tracks.puppet.evaluator_quality import publish

    facts = {
        "renderer": VERSION,
        "seed": SEED,
        "steps": STEPS,
        "clips": CLIPS,
        "hand_frames": 6 * HANDS,
        "people": PEOPLE,
    }
    return publish(trained, facts, out, work, progress)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for renderings and checkpoints (about 2 GB)")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where weights and model card go")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    train(chosen.work, chosen.out, Console(stderr=True))


if __name__ == "__main__":
    main()
