"""Published networks, divided among the processes of a launch: a program for torchrun, started by tests.

    torchrun --nproc_per_node 2 divided_models.py FOLDER

Prints a line of JSON for each: by how much predictions and gradients differ from the whole network's, and the share of
the weights that the first process holds.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import tiny_models
import torch
from conftest import Published
from tiny import TinyTrack

from halign_bench.adapters import adapter_parameters, attach_lora, remove_adapters
from halign_bench.processes import join
from halign_bench.recompute import recomputing
from halign_bench.sharding import shard


def passed(backbone: Any, again: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A prediction with a LoRA that adds something, and the LoRA's gradients; the reference's pass in between.

    again  blocks run again in the backward pass, as they do on a GPU
    """
    track = TinyTrack(frames=backbone.frames, size=backbone.size)
    with torch.no_grad():
        condition = backbone.condition([track.clip("eval", index) for index in range(2)])
    noise = torch.randn(2, *backbone.latent_shape(), generator=torch.Generator().manual_seed(0))
    for parameter in attach_lora(backbone.denoiser, "lora", backbone.lora_targets, 4, 4.0, 0):
        parameter.data.add_(0.01)
    levels = torch.tensor([0.3, 0.6])
    with backbone.adapters(["lora"]), recomputing(backbone.denoiser) if again else nullcontext():
        prediction = backbone.denoise(noise, levels, condition)
        with torch.no_grad(), backbone.adapters([]):
            backbone.denoise(noise, levels, condition)
        prediction.float().pow(2).mean().backward()
    gradients = [p.grad.flatten() for p in adapter_parameters(backbone.denoiser, "lora").values() if p.grad is not None]
    remove_adapters(backbone.denoiser)
    return prediction.detach(), torch.cat(gradients)


def main(folder: Path) -> None:
    processes = join("cpu")
    published = Published(folder)
    if processes.main:
        for name in (*tiny_models.BACKBONE, "wav2vec2"):
            published.folder(name)
    processes.settle()
    for name in tiny_models.BACKBONE:
        backbone = published.load(name)
        whole, slope = passed(backbone, False)
        shard(backbone.denoiser, processes)
        divided, slope_divided = passed(backbone, True)
        weights = list(backbone.denoiser.parameters())
        held = sum(p.to_local().numel() for p in weights) / sum(p.numel() for p in weights)
        if processes.main:
            worst = [float((a - b).abs().max() / a.abs().max()) for a, b in ((whole, divided), (slope, slope_divided))]
            print(json.dumps({"model": name, "prediction": worst[0], "gradient": worst[1], "held": held}), flush=True)
    processes.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
