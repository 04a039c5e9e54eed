"""Makes the embedded base again: `halign-bench pretrain`.

Four stages, each resumable and each a pure function of the seed: `codec` (principal components,
then the decoder on noised latents), `audio` (reads the mouth off the sound), `corpus` (clips with
defects, drawn and encoded once), `base` (the denoiser). The folder written is what its backbone
loads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from halign_bench import registry
from halign_bench.atomic import atomic_path, atomic_write
from halign_bench.audio import log_mel
from halign_bench.audio_encoder import BANDS, AudioEncoder
from halign_bench.backbone import native_precision
from halign_bench.backbones._puppet import PuppetBackbone, lips_channels
from halign_bench.codec import PATCH, PuppetCodec, from_patches, to_patches
from halign_bench.errors import RequestError
from halign_bench.masks import hand_mask, mouth_mask
from halign_bench.sealing import intact, seal
from halign_bench.skeleton import draw_skeleton
from halign_bench.tracks.puppet import PuppetTrack
from halign_bench.tracks.puppet.clips import take

if TYPE_CHECKING:
    from halign_bench.track import Clip

SHARD = 250  # clips a corpus file
GRID = (1, 5, 8, 8)  # of a clip's latents, without channels
WORTH_COMPILING = 300  # steps; compiling takes about a minute
Report = Callable[[str, int, int, dict[str, float]], None]
"""(stage, done, total, numbers to show)"""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, written beside them."""

    backbone: str = "puppet-dit"
    seed: int = 0
    latent_channels: int = 160
    codec_width: int = 48
    codec_clips: int = 2000
    codec_steps: int = 4000
    codec_batch: int = 3
    codec_noise: float = 0.7
    codec_hand_weight: float = 4.0
    codec_mouth_weight: float = 100.0
    audio_clips: int = 4000
    audio_steps: int = 3000
    audio_width: int = 64
    clips: int = 12_000
    width: int = 192
    layers: int = 4
    heads: int = 4
    steps: int = 9_000
    batch: int = 16
    lr: float = 3e-3
    noise_level: float = 0.3
    ema: float = 0.999
    drop_audio: float = 0.1
    drop_skeleton: float = 0.05
    hand_weight: float = 3.0
    mouth_weight: float = 25.0


RECIPES = {
    "puppet-dit": Recipe(),
    "puppet-unet": Recipe(backbone="puppet-unet", width=96, layers=1, steps=6_000),
}


# ---------------------------------------------------------------------------------------- pieces


def _autocast() -> Any:
    return torch.autocast("cpu", torch.bfloat16, enabled=native_precision("cpu") == "bf16")


def _pixels(videos: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(videos)).movedim(-1, 1).float() / 127.5 - 1


def _plain_attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None, **_: Any) -> Tensor:
    """Attention written out: a few hundred tokens on a processor train faster so than by the fused kernel."""
    scores = (query * (scale or query.shape[-1] ** -0.5)) @ key.transpose(-1, -2)
    return torch.softmax(scores, -1).to(value.dtype) @ value


@contextmanager
def _compiled(denoiser: torch.nn.Module, steps: int) -> Iterator[None]:
    """Compiles for the time of pretraining: twice as fast, if it is long enough and there is a C++ compiler."""
    fused = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = _plain_attention  # type: ignore[assignment]
    try:
        if steps >= WORTH_COMPILING and (shutil.which("g++") or shutil.which("clang++")):
            denoiser.compile()
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = fused
        denoiser._compiled_call_impl = None


def _save_atomically(tensors: dict[str, Tensor], file: Path) -> None:
    with atomic_path(file) as temporary:
        save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)


def _draw(index: int) -> tuple[Clip, np.ndarray]:
    clip = PuppetTrack().clip("pretrain", index)
    assert clip.skeleton is not None and clip.layout is not None
    return clip, draw_skeleton(clip.skeleton, clip.layout, (64, 64))


def _drawn(first: int, last: int, workers: int) -> Iterator[tuple[Clip, np.ndarray]]:
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_draw, range(first, last), chunksize=16)


# ----------------------------------------------------------------------------------------- codec


def train_codec(recipe: Recipe, work: Path, workers: int, report: Report) -> PuppetCodec:
    """Fits the encoder's basis, then trains the decoder; resumes from `work`."""
    done, codec = work / "codec.safetensors", PuppetCodec(recipe.latent_channels, recipe.codec_width)
    if done.exists():
        codec.load_state_dict(load_file(done))
        return codec
    videos = np.empty((recipe.codec_clips, 17, 64, 64, 3), np.uint8)
    skeletons = np.empty((recipe.codec_clips // 4, 17, 64, 64, 3), np.uint8)
    importance = torch.empty(recipe.codec_clips, 1, 5, 8, 8)
    for row, (clip, skeleton) in enumerate(_drawn(0, recipe.codec_clips, workers)):
        videos[row] = clip.video
        masks = hand_mask(clip, GRID), mouth_mask(clip, GRID)
        importance[row] = 1 + recipe.codec_hand_weight * masks[0] + recipe.codec_mouth_weight * masks[1]
        if row < len(skeletons):
            skeletons[row] = skeleton
        report("codec clips", row + 1, recipe.codec_clips, {})
    torch.manual_seed(recipe.seed)
    codec = PuppetCodec(recipe.latent_channels, recipe.codec_width)
    few = max(recipe.codec_clips // 4, 8)
    sets = [to_patches(_pixels(v)).movedim(1, -1).reshape(-1, PATCH) for v in (videos[:few], skeletons[: few // 2])]
    codec.fit(torch.cat(sets), torch.cat([importance[:few].flatten(), torch.ones(len(sets[1]))]))
    optimiser = torch.optim.AdamW(codec.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    partial, start = work / "codec.partial.pt", 0
    if partial.exists():
        start = _restore(partial, codec, [optimiser])["step"]
    _checkpoint(partial, codec, [optimiser], start)
    for step in range(start, recipe.codec_steps):
        rng = np.random.default_rng((recipe.seed, 1, step))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 50) * _cosine(step, recipe.codec_steps)
        rows = np.sort(rng.choice(recipe.codec_clips, recipe.codec_batch, replace=False))
        real = _pixels(videos[rows])
        weight = from_patches(importance[rows].sqrt().expand(-1, PATCH, -1, -1, -1))
        latents = codec.encode(real)
        sigma = recipe.codec_noise * torch.rand(len(real), 1, 1, 1, 1, generator=generator)
        with _autocast():
            made = codec.decode(latents + sigma * torch.randn(latents.shape, generator=generator))
        error = made - real
        edges = error.diff(dim=-1).abs()[..., 1:, :] + error.diff(dim=-2).abs()[..., 1:]
        loss = (weight * (error.abs() + 2 * error.square())).mean() + (weight[..., 1:, 1:] * edges).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimiser.step()
        report("codec", step + 1, recipe.codec_steps, {"loss": loss.item()})
        if (step + 1) % 500 == 0:
            _checkpoint(partial, codec, [optimiser], step + 1)
    _save_atomically(codec.state_dict(), done)
    return codec


def _cosine(step: int, total: int, floor: float = 0.03) -> float:
    return floor + (1 - floor) * 0.5 * (1 + float(np.cos(np.pi * step / total)))


def _checkpoint(
    file: Path, model: torch.nn.Module, optimisers: Sequence[torch.optim.Optimizer], step: int, **more: Any
) -> None:
    states = [optimiser.state_dict() for optimiser in optimisers]
    with atomic_path(file) as temporary:
        torch.save({"model": model.state_dict(), "optimisers": states, "step": step, **more}, temporary)
        seal(temporary)


def _restore(file: Path, model: torch.nn.Module, optimisers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    if not intact(file):
        raise RequestError(f"{file}: damaged, or of an older version; delete it to go on from the step before it")
    state: dict[str, Any] = torch.load(file, weights_only=True)
    model.load_state_dict(state["model"])
    for optimiser, stored in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(stored)
    return state


# ----------------------------------------------------------------------------------------- audio


def train_audio(recipe: Recipe, work: Path, report: Report) -> AudioEncoder:
    """Regresses opening and width of the mouth on the sound, clip by clip as the corpus speaks; a minute at most."""
    done, encoder = work / "audio_encoder.safetensors", AudioEncoder(recipe.audio_width)
    if done.exists():
        encoder.load_state_dict(load_file(done))
        return encoder
    takes = [take("pretrain", index, 17) for index in range(recipe.audio_clips)]
    mel = torch.from_numpy(np.stack([log_mel(one.audio(), 17, BANDS) for one in takes]))
    mouth = torch.from_numpy(np.stack([one.script.at_frames(17) for one in takes])).float()
    torch.manual_seed(recipe.seed)
    encoder = AudioEncoder(recipe.audio_width)
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=2e-3)
    for step in range(recipe.audio_steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * _cosine(step, recipe.audio_steps)
        rows = torch.from_numpy(np.random.default_rng((recipe.seed, 3, step)).integers(recipe.audio_clips, size=64))
        loss = (encoder(mel[rows]) - mouth[rows]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        report("audio", step + 1, recipe.audio_steps, {"loss": loss.item()})
    _save_atomically(encoder.state_dict(), done)
    return encoder


# ---------------------------------------------------------------------------------------- corpus


def make_corpus(
    recipe: Recipe, codec: PuppetCodec, encoder: AudioEncoder, work: Path, workers: int, report: Report
) -> dict[str, Tensor]:
    """Draws and encodes the corpus, shard by shard; returns it in memory, half precision."""
    shards = []
    for first in range(0, recipe.clips, SHARD):
        file = work / "corpus" / f"{first:06d}.safetensors"
        if not file.exists():
            drawn = list(_drawn(first, min(first + SHARD, recipe.clips), workers))
            clips = [clip for clip, _ in drawn]
            with torch.no_grad():
                tensors = {
                    "video": codec.encode(_pixels(np.stack([clip.video for clip in clips]))).half(),
                    "skeleton": codec.encode(_pixels(np.stack([skeleton for _, skeleton in drawn]))).half(),
                    "reference": codec.encode(_pixels(np.stack([clip.reference[None] for clip in clips]))).half(),
                }
            audio = [encoder.features(clip.audio, 17) for clip in clips if clip.audio is not None]
            tensors["audio"] = torch.stack(audio).half()
            lips = [lips_channels(one, clip, (64, 64)) for one, clip in zip(audio, clips, strict=True)]
            tensors["lips"] = torch.stack(lips).half()
            tensors["hands"] = torch.stack([hand_mask(clip, GRID) for clip in clips]).half()
            tensors["mouth"] = torch.stack([mouth_mask(clip, GRID) for clip in clips]).half()
            _save_atomically(tensors, file)
        shards.append(load_file(file))
        report("corpus", min(first + SHARD, recipe.clips), recipe.clips, {})
    return {key: torch.cat([shard[key] for shard in shards]) for key in shards[0]}


# ------------------------------------------------------------------------------------------ base


def _class_of(recipe: Recipe) -> type[PuppetBackbone]:
    found: Any = registry.get("backbone", recipe.backbone)
    return cast(type[PuppetBackbone], found)


def _optimisers(denoiser: torch.nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the rest: a third fewer steps than AdamW alone, and
    it bears three times the learning rate (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon)."""
    hidden = {name: p for name, p in denoiser.named_parameters() if p.ndim == 2 and "blocks." in name}
    rest = [p for name, p in denoiser.named_parameters() if name not in hidden]
    return [
        torch.optim.Muon(hidden.values(), lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=1e-3),
    ]


def train_base(
    recipe: Recipe, codec: PuppetCodec, encoder: AudioEncoder, corpus: dict[str, Tensor], work: Path, report: Report
) -> PuppetBackbone:
    """Denoising on the defective corpus, importance-weighted; an average of the weights is kept."""
    torch.manual_seed(recipe.seed)
    backbone_class = _class_of(recipe)
    denoiser = backbone_class.new_network(recipe.latent_channels, recipe.width, recipe.layers, recipe.heads)
    backbone = backbone_class(denoiser, codec, encoder, base_sha256="untrained")
    denoiser.train().requires_grad_(True)
    average = {key: value.clone() for key, value in denoiser.state_dict().items()}
    optimisers = _optimisers(denoiser, recipe.lr)
    partial, start = work / "base.partial.pt", 0
    if partial.exists():
        state = _restore(partial, denoiser, optimisers)
        start, average = state["step"], state["average"]
    with _compiled(denoiser, recipe.steps - start):
        for step in range(start, recipe.steps):
            rng = np.random.default_rng((recipe.seed, 2, step))
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            for group in (group for optimiser in optimisers for group in optimiser.param_groups):
                group["lr"] = recipe.lr * min(1, (step + 1) / 200) * _cosine(step, recipe.steps)
            rows = torch.from_numpy(np.sort(rng.choice(recipe.clips, recipe.batch, replace=False)))
            batch = {key: value[rows].float() for key, value in corpus.items()}
            keep_audio, keep_skeleton = (
                (torch.rand(recipe.batch, generator=generator) >= share).float().view(-1, 1, 1, 1, 1)
                for share in (recipe.drop_audio, recipe.drop_skeleton)
            )
            condition = {
                "reference": batch["reference"],
                "skeleton": batch["skeleton"] * keep_skeleton,
                "audio": batch["audio"] * keep_audio[..., 0, 0],
                "lips": batch["lips"] * keep_audio * keep_skeleton,
            }
            t = torch.sigmoid(recipe.noise_level + 1.2 * torch.randn(recipe.batch, generator=generator))
            noise = torch.randn(batch["video"].shape, generator=generator)
            with _autocast():
                velocity = backbone.predict(backbone.add_noise(batch["video"], noise, t), t, condition)
            error = (velocity.float() - backbone.target(batch["video"], noise, t)).square()
            if backbone.parameterisation == "epsilon":  # in a velocity's units, else low noise would be all of it
                error = error / backbone.alpha_sigma(t)[0].view(-1, 1, 1, 1, 1).square()
            importance = 1 + recipe.hand_weight * batch["hands"] + recipe.mouth_weight * batch["mouth"]
            loss = (error * importance).mean() / importance.mean()
            denoiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
            for optimiser in optimisers:
                optimiser.step()
            decay = min(recipe.ema, (step + 1) / (step + 10))
            with torch.no_grad():
                for key, value in denoiser.state_dict().items():
                    average[key].lerp_(value, 1 - decay)
            report("base", step + 1, recipe.steps, {"loss": loss.item()})
            if (step + 1) % 250 == 0:
                _checkpoint(partial, denoiser, optimisers, step + 1, average=average)
    denoiser.load_state_dict(average)
    denoiser.eval().requires_grad_(False)
    return backbone


def main(
    out: Path,
    recipe: Recipe | None = None,
    work: Path | None = None,
    stage: str = "all",
    workers: int = 2,
    report: Report = lambda stage, done, total, numbers: None,
) -> Path:
    """Trains what `stage` names (codec, audio, corpus, base or all) and writes the checkpoint folder to `out`.

    Work in progress is kept in `work` (default `out`/work), and taken up again when the recipe is the same.
    """
    if stage in ("base", "all") and not hasattr(torch.optim, "Muon"):
        raise RequestError(f"pretraining a base needs torch 2.9 or later for Muon; this is {torch.__version__}")
    recipe = recipe or Recipe()
    work = work or out / "work"
    work.mkdir(parents=True, exist_ok=True)
    stated = work / "recipe.json"
    wanted = json.dumps(asdict(recipe), indent=2)
    if stated.exists() and stated.read_text() != wanted:
        raise RequestError(f"{work} holds work of another recipe ({stated}); choose another --out, or remove it")
    atomic_write(stated, wanted)
    codec = train_codec(recipe, work, workers, report)
    if stage == "codec":
        return work / "codec.safetensors"
    encoder = train_audio(recipe, work, report)
    if stage == "audio":
        return work / "audio_encoder.safetensors"
    corpus = make_corpus(recipe, codec, encoder, work, workers, report)
    if stage == "corpus":
        return work / "corpus"
    backbone = train_base(recipe, codec, encoder, corpus, work, report)
    backbone.save(out)
    card = {"recipe": asdict(recipe), "base_sha256": type(backbone).load(out).base_sha256, "torch": torch.__version__}
    atomic_write(out / "base.json", json.dumps(card, indent=2) + "\n")
    return out
