"""Makes the embedded base again: `halign-bench pretrain`.

Three stages, each resumable and each a pure function of the seed: `codec` (principal components,
then the decoder on noised latents), `corpus` (clips with defects, drawn and encoded once), `base`
(flow matching). The folder written is what `puppet-dit` loads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from halign_bench.audio import log_mel
from halign_bench.backbones.puppet_dit import AUDIO_BANDS, PuppetDiT, make_transformer
from halign_bench.codec import PATCH, PuppetCodec, from_patches, to_patches
from halign_bench.errors import RequestError
from halign_bench.results import atomic_path
from halign_bench.skeleton import draw_skeleton
from halign_bench.tracks.puppet import PuppetTrack
from halign_bench.tracks.puppet.body import mouth_centre

if TYPE_CHECKING:
    from halign_bench.track import Clip

SHARD = 250  # clips a corpus file
WORTH_COMPILING = 300  # steps; compiling takes about a minute
Report = Callable[[str, int, int, dict[str, float]], None]
"""(stage, done, total, numbers to show)"""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, written beside them."""

    seed: int = 0
    latent_channels: int = 96
    codec_width: int = 48
    codec_clips: int = 2000
    codec_steps: int = 6000
    codec_batch: int = 3
    codec_noise: float = 0.5
    codec_hand_weight: float = 4.0
    codec_mouth_weight: float = 20.0
    clips: int = 10_000
    width: int = 192
    layers: int = 4
    heads: int = 4
    steps: int = 4_500
    batch: int = 16
    lr: float = 1e-3
    ema: float = 0.999
    drop_audio: float = 0.1
    drop_skeleton: float = 0.05
    hand_weight: float = 3.0
    mouth_weight: float = 25.0


# ---------------------------------------------------------------------------------------- pieces


def _autocast() -> Any:
    """bfloat16 where the processor multiplies it natively, else float32."""
    native = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return torch.autocast("cpu", torch.bfloat16) if native else nullcontext()


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


def _importance(clip: Clip, hand_weight: float, mouth_weight: float) -> Tensor:
    """Loss weight `[1, 5, 8, 8]` of each latent cell: hands and mouth are small and matter most."""
    assert clip.skeleton is not None and clip.layout is not None
    frames = len(clip.video)
    pixels = np.ones((frames, 64, 64), np.float32)
    mouths = mouth_centre(clip.skeleton)
    for k in range(frames):
        points = clip.skeleton[k, :, :2]
        boxes = [(points[rows], hand_weight, 2.0) for rows in clip.layout.hands]
        boxes.append((mouths[k][None], mouth_weight, 5.0))
        for joints, weight, margin in boxes:
            (left, top), (right, bottom) = joints.min(0) - margin, joints.max(0) + margin
            pixels[k, max(int(top), 0) : max(int(bottom), 0), max(int(left), 0) : max(int(right), 0)] = 1 + weight
    padded = np.concatenate([pixels[:1].repeat(3, 0), pixels])
    return torch.from_numpy(padded.reshape(-1, 4, 8, 8, 8, 8).mean((1, 3, 5)))[None]


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
        importance[row] = _importance(clip, recipe.codec_hand_weight, recipe.codec_mouth_weight)
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
        state = torch.load(partial, weights_only=True)
        codec.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    _checkpoint(partial, codec, optimiser, start)
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
            _checkpoint(partial, codec, optimiser, step + 1)
    _save_atomically(codec.state_dict(), done)
    return codec


def _cosine(step: int, total: int, floor: float = 0.03) -> float:
    return floor + (1 - floor) * 0.5 * (1 + float(np.cos(np.pi * step / total)))


def _checkpoint(file: Path, model: torch.nn.Module, optimiser: torch.optim.Optimizer, step: int, **more: Any) -> None:
    with atomic_path(file) as temporary:
        torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step, **more}, temporary)


# ---------------------------------------------------------------------------------------- corpus


def make_corpus(recipe: Recipe, codec: PuppetCodec, work: Path, workers: int, report: Report) -> dict[str, Tensor]:
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
            audio = [torch.from_numpy(log_mel(clip.audio, 17, AUDIO_BANDS)) for clip in clips if clip.audio is not None]
            tensors["audio"] = torch.stack(audio).half()
            importance = [_importance(clip, recipe.hand_weight, recipe.mouth_weight) for clip in clips]
            tensors["importance"] = torch.stack(importance).half()
            _save_atomically(tensors, file)
        shards.append(load_file(file))
        report("corpus", min(first + SHARD, recipe.clips), recipe.clips, {})
    return {key: torch.cat([shard[key] for shard in shards]) for key in shards[0]}


# ------------------------------------------------------------------------------------------ base


def train_base(recipe: Recipe, codec: PuppetCodec, corpus: dict[str, Tensor], work: Path, report: Report) -> PuppetDiT:
    """Flow matching on the defective corpus, importance-weighted; an average of the weights is kept."""
    torch.manual_seed(recipe.seed)
    denoiser = make_transformer(recipe.latent_channels, recipe.width, recipe.layers, recipe.heads)
    backbone = PuppetDiT(denoiser, codec, base_sha256="untrained")
    denoiser.train().requires_grad_(True)
    average = {key: value.clone() for key, value in denoiser.state_dict().items()}
    optimiser = torch.optim.AdamW(denoiser.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=1e-3)
    partial, start = work / "base.partial.pt", 0
    if partial.exists():
        state = torch.load(partial, weights_only=True)
        denoiser.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        start, average = state["step"], state["average"]
    with _compiled(denoiser, recipe.steps - start):
        for step in range(start, recipe.steps):
            rng = np.random.default_rng((recipe.seed, 2, step))
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            for group in optimiser.param_groups:
                group["lr"] = recipe.lr * min(1, (step + 1) / 200) * _cosine(step, recipe.steps)
            rows = torch.from_numpy(np.sort(rng.choice(recipe.clips, recipe.batch, replace=False)))
            batch = {key: value[rows].float() for key, value in corpus.items()}
            keep_audio, keep_skeleton = (
                (torch.rand(recipe.batch, generator=generator) >= share).float()
                for share in (recipe.drop_audio, recipe.drop_skeleton)
            )
            condition = {
                "reference": batch["reference"],
                "skeleton": batch["skeleton"] * keep_skeleton.view(-1, 1, 1, 1, 1),
                "audio": batch["audio"] * keep_audio.view(-1, 1, 1),
            }
            t = torch.sigmoid(1.2 * torch.randn(recipe.batch, generator=generator))
            noise = torch.randn(batch["video"].shape, generator=generator)
            with _autocast():
                velocity = backbone.predict(backbone.add_noise(batch["video"], noise, t), t, condition)
            error = (velocity.float() - backbone.target(batch["video"], noise, t)).square()
            loss = (error * batch["importance"]).mean() / batch["importance"].mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
            optimiser.step()
            decay = min(recipe.ema, (step + 1) / (step + 10))
            with torch.no_grad():
                for key, value in denoiser.state_dict().items():
                    average[key].lerp_(value, 1 - decay)
            report("base", step + 1, recipe.steps, {"loss": loss.item()})
            if (step + 1) % 250 == 0:
                _checkpoint(partial, denoiser, optimiser, step + 1, average=average)
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
    """Trains what `stage` names (codec, corpus, base or all) and writes the checkpoint folder to `out`.

    Work in progress is kept in `work` (default `out`/work), and taken up again when the recipe is the same.
    """
    recipe = recipe or Recipe()
    work = work or out / "work"
    work.mkdir(parents=True, exist_ok=True)
    stated = work / "recipe.json"
    wanted = json.dumps(asdict(recipe), indent=2)
    if stated.exists() and stated.read_text() != wanted:
        raise RequestError(f"{work} holds work of another recipe ({stated}); choose another --out, or remove it")
    stated.write_text(wanted)
    codec = train_codec(recipe, work, workers, report)
    if stage == "codec":
        return work / "codec.safetensors"
    corpus = make_corpus(recipe, codec, work, workers, report)
    if stage == "corpus":
        return work / "corpus"
    backbone = train_base(recipe, codec, corpus, work, report)
    backbone.save(out)
    card = {"recipe": asdict(recipe), "base_sha256": PuppetDiT.load(out).base_sha256, "torch": torch.__version__}
    (out / "base.json").write_text(json.dumps(card, indent=2) + "\n")
    return out
