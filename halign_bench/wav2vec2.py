"""wav2vec 2.0 (arXiv 2006.11477) through transformers: what a model of talking people hears, frame by frame."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench.errors import RequestError, first_line
from halign_bench.pretrained import load_whole
from halign_bench.track import SAMPLE_RATE

if TYPE_CHECKING:
    import numpy as np
    import torch


class Wav2Vec2:
    """`model` is a folder or a hub id of a `Wav2Vec2Model`, for example facebook/wav2vec2-base-960h.

    width   of the features of one video frame: layers times channels, 12 · 768 for wav2vec2-base
    folder  where its files lie
    Raises RequestError where it cannot be read.
    """

    def __init__(self, model: str, device: str = "cpu") -> None:
        import torch
        from transformers import AutoFeatureExtractor, Wav2Vec2Model
        from transformers.utils import cached_file

        where = f"--audio-encoder {model}:"
        unused = ("masked_spec_embed",)  # in pretraining alone
        self.net: Any = load_whole(Wav2Vec2Model, model, where, unused, torch_dtype=torch.float32).to(device)
        try:
            self.extractor: Any = AutoFeatureExtractor.from_pretrained(model)
        except Exception as problem:  # of many kinds
            raise RequestError(f"{where} its feature extractor cannot be read ({first_line(problem)})") from None
        if self.extractor.sampling_rate != SAMPLE_RATE:
            raise RequestError(f"{where} hears {self.extractor.sampling_rate} Hz, clips are 16 kHz")
        config = self.net.config
        self.width = config.num_hidden_layers * config.hidden_size
        self.folder = Path(model) if Path(model).is_dir() else Path(cached_file(model, "config.json") or "").parent

    def __call__(self, audio: np.ndarray, frames: int) -> torch.Tensor:
        """float32 `[samples]`, mono 16 kHz -> `[frames, width]`: the outputs of all layers for each video frame.

        As Hallo does (arXiv 2406.08801, released code): what the convolutions give is interpolated to the frame rate
        before the layers, so that these see video frames.
        """
        import torch
        from torch.nn.functional import interpolate

        given = self.extractor(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values
        with torch.no_grad():
            heard = self.net.feature_extractor(given.to(self.net.device))  # [1, C, about 50 a second]
            heard = interpolate(heard, size=frames, mode="linear", align_corners=True).transpose(1, 2)
            hidden, _ = self.net.feature_projection(heard)
            layers: list[torch.Tensor] = []
            hooks = [layer.register_forward_hook(partial(_keep, layers)) for layer in self.net.encoder.layers]
            try:
                self.net.encoder(hidden)
            finally:
                for hook in hooks:
                    hook.remove()
        return torch.cat([layer[0] for layer in layers], dim=-1).float()


def _keep(kept: list[torch.Tensor], layer: Any, given: Any, output: Any) -> None:
    kept.append(output[0] if isinstance(output, tuple) else output)  # as the version of transformers has it


__all__ = ["Wav2Vec2"]
