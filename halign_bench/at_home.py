"""What a method trained beside a network, put to use in a plain diffusers pipeline.

LoRAs need nothing of ours: `pipeline.load_lora_weights` reads them. A module of a method's own, such as TMM's, does:

    audio = from_pretrained("runs/mine/cells/…/adapters/tmm-audio", pipeline.transformer)
    with audio.at_work({"audio": features}):  # [B, T, F], of each video frame
        video = pipeline(…)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench.adapters import INSERT_CONFIG, INSERT_WEIGHTS
from halign_bench.documents import parsed
from halign_bench.errors import RequestError
from halign_bench.inserts import Block, Insert, hooked

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Condition


class TrainedInsert:
    """A method's module with its trained weights, and where in `denoiser` it belongs.

    module  an nn.Module of the method's own layers
    """

    def __init__(
        self, insert: Insert, module: torch.nn.Module, denoiser: torch.nn.Module, blocks: Sequence[Block]
    ) -> None:
        self.insert, self.module, self.denoiser, self.blocks = insert, module, denoiser, blocks

    @contextmanager
    def at_work(self, condition: Condition) -> Iterator[None]:
        """Within the context every forward pass of the denoiser has what the module adds for these clips.

        condition  what the module reads, `[B, …]` for the B clips that the pipeline makes. The unguided branch has
                   no audio: where a pipeline puts both branches through together it is the first half of the batch,
                   where it calls twice at the same timestep it is the second call, as diffusers' pipelines do
        """
        import torch

        silent = {name: torch.zeros_like(v) if name == "audio" else v for name, v in condition.items()}
        clips = len(next(iter(condition.values())))
        before: list[Any] = []  # timestep of the last call, while that was the conditional one

        def forward(*args: Any, **kwargs: Any) -> Any:
            sample = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
            timestep = torch.as_tensor(kwargs["timestep"] if "timestep" in kwargs else args[1]).flatten()[:1].tolist()
            now = condition
            if len(sample) == 2 * clips:
                now = {name: torch.cat([silent[name], value]) for name, value in condition.items()}
            elif before == timestep:
                now = silent
                timestep = []
            before[:] = timestep
            frames = next(value.shape[1] for value in now.values())
            latent_frames = 1 + (frames - 1) // self.blocks[0].span
            additions = self.insert.add(self.module, self.blocks, now)
            with hooked(self.blocks, [additions], (len(sample), latent_frames, *sample.shape[-2:])):
                return plain(*args, **kwargs)

        plain = self.denoiser.forward
        self.denoiser.forward = forward
        try:
            yield
        finally:
            self.denoiser.forward = plain


def from_pretrained(folder: str | Path, denoiser: torch.nn.Module) -> TrainedInsert:
    """The module that a run left in `folder`, for a pipeline's transformer or UNet of the same layout.

    Raises RequestError where the folder holds none, or one for another network.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from halign_bench import registry

    folder = Path(folder)
    try:
        about = parsed((folder / INSERT_CONFIG).read_text(encoding="utf-8"))
        weights = load_file(folder / INSERT_WEIGHTS)
    except (OSError, ValueError, SafetensorError) as problem:
        raise RequestError(f"{folder}: no module of a method's own can be read there ({problem})") from None
    method: Any = registry.get("method", about["method"])
    backbone: Any = registry.get("backbone", about["backbone"])
    stages = method(method.Config(**about["config"])).stages()
    insert = next(stage.insert for stage in stages if stage.adapter == about["adapter"])
    blocks = backbone.blocks_of(denoiser)
    condition = {name: torch.zeros(1, *shape) for name, shape in about["condition"].items()}
    module = insert.build(blocks, condition).float()
    try:
        module.load_state_dict(weights)
    except RuntimeError as problem:
        reason = str(problem).splitlines()[-1].strip()
        raise RequestError(f"{folder}: these weights belong to another network ({reason})") from None
    module.to(next(denoiser.parameters()).device).eval().requires_grad_(False)
    return TrainedInsert(insert, module, denoiser, blocks)


__all__ = ["TrainedInsert", "from_pretrained"]
