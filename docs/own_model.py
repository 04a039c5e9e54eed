"""A backbone for a model that is not in diffusers: replace `network` and the methods below it by your own."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import avg_pool3d

from halign_bench.backbone import Backbone
from halign_bench.registry import register


def network():
    return nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 3))


@register
class MyModel(Backbone):
    """Velocities of 8 x 8 x 4 boxes of pixels from their noisy colours, the reference's, and how loud it is."""

    name, summary, needs_model = "my-model", "an example of one's own model", True
    parameterisation, lora_targets = "flow", ("0", "2")  # names of the layers that take a LoRA

    @classmethod
    def load(cls, checkpoint=None, device="cpu", frames=None, size=None):
        made, made.denoiser, made.device = cls(), network(), device
        made.denoiser.load_state_dict(load_file(checkpoint))
        made.denoiser.to(device).eval().requires_grad_(False)
        made.base_sha256 = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
        made.frames, made.size = frames or 17, size or (64, 64)
        return made

    def latent_shape(self):
        return 3, 1 + (self.frames - 1) // 4, self.size[0] // 8, self.size[1] // 8

    def encode(self, videos):
        pixels = torch.from_numpy(videos).to(self.device).movedim(-1, 1).float() / 127.5 - 1
        return avg_pool3d(torch.cat([pixels[:, :, :1].expand(-1, -1, 3, -1, -1), pixels], dim=2), (4, 8, 8))

    def decode(self, latents):
        boxes = latents.clamp(-1, 1).repeat_interleave(4, 2)[:, :, 3:].repeat_interleave(8, 3).repeat_interleave(8, 4)
        return ((boxes + 1) * 127.5).round().byte().movedim(1, -1).cpu().numpy()

    def condition(self, clips):
        silence = np.zeros(self.frames * 640, np.float32)  # 640 samples of sound in a frame
        sound = np.stack([silence if clip.audio is None else clip.audio for clip in clips])
        loud = torch.from_numpy(sound).to(self.device).abs().unflatten(1, (self.frames, 640)).mean(2, keepdim=True)
        return {"reference": self.encode(np.stack([clip.reference[None] for clip in clips])), "audio": loud}

    def unconditional(self, condition):
        return {**condition, "audio": condition["audio"] * 0}

    def predict(self, x_t, t, condition):
        level, loud = (part[:, None, :, None, None] for part in (t[:, None], condition["audio"][:, ::4, 0]))
        parts = [part.expand(-1, -1, *x_t.shape[2:]) for part in (x_t, condition["reference"], level, loud)]
        return self.denoiser(torch.cat(parts, dim=1).movedim(1, -1)).movedim(-1, 1)
