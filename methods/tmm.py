"""TMM (Hallo4, arXiv 2505.23525): temporal motion modulation, motion conditions at the full frame rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from halign_bench.batch import ClipBatch, PairBatch, error
from halign_bench.errors import RequestError
from halign_bench.inserts import Additions, Block, Insert
from halign_bench.method import AlignmentMethod, Claim, LossOutput, Stage
from halign_bench.registry import register

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone, Condition, Denoiser

PAPER = "arXiv 2505.23525"
STRIDE = 4  # video frames in a latent frame, of the codecs that TMM was made for


def fold(frames: torch.Tensor, places: int, span: int = STRIDE) -> torch.Tensor:
    """`[B, T, …]`, T = 1 + span·n -> `[B, 1 + n, places, …]`: what each latent frame is told of its own video frames.

    With a span of 4, latent frame k > 0 stands for video frames 4k-3 to 4k, of which every (4/places)th is kept: place
    j holds frame 4(k-1) + (4/places)(j+1). So 4 places hold all of them and 1 is subsampling. Latent frame 0 stands
    for frame 0 alone, which is repeated to fill its group [code].
    """
    import torch

    if frames.shape[1] % span != 1 % span:
        raise ValueError(f"{frames.shape[1]} frames are not 1 + {span}n")
    step = span // places
    first = frames[:, :1].expand(-1, places, *frames.shape[2:])
    return torch.cat([first, frames[:, step::step]], dim=1).unflatten(1, (-1, places))


def windows(frames: torch.Tensor, reach: int) -> torch.Tensor:
    """`[B, T, F]` -> `[B, T, (2·reach + 1)·F]`: each frame with its neighbours, the ends repeated [code]."""
    import torch

    steps = torch.arange(frames.shape[1], device=frames.device)
    around = steps[:, None] + torch.arange(-reach, reach + 1, device=frames.device)
    return frames[:, around.clamp(0, len(steps) - 1)].flatten(2)


def cross_attention(block: Block, context: int, video_asks: bool) -> torch.nn.ModuleDict:
    """Layers between a block's tokens and `context` channels. The video is the query, or is what is asked of."""
    from torch import nn

    asking, asked = (block.width, context) if video_asks else (context, block.width)
    layers = nn.ModuleDict({
        "norm": nn.LayerNorm(block.width),  # of the video tokens
        "q": nn.Linear(asking, block.width), "k": nn.Linear(asked, block.width), "v": nn.Linear(asked, block.width),
        "norm_q": nn.RMSNorm(block.width, eps=1e-5), "norm_k": nn.RMSNorm(block.width, eps=1e-5),
        "o": nn.Linear(block.width, block.width),
    })  # fmt: skip
    nn.init.zeros_(layers["o"].weight)  # so that it adds nothing before training [code]
    nn.init.zeros_(layers["o"].bias)
    return layers


def attend(layers: Any, queries: torch.Tensor, context: torch.Tensor, heads: int) -> torch.Tensor:
    """`[B, T, N, ·]`, `[B, T, M, ·]` -> `[B, T, N, width]`, within each latent frame."""
    from torch.nn.functional import scaled_dot_product_attention

    q, k = layers["norm_q"](layers["q"](queries)), layers["norm_k"](layers["k"](context))
    v = layers["v"](context)
    q, k, v = (x.to(v.dtype).unflatten(-1, (heads, -1)).transpose(-2, -3) for x in (q, k, v))
    mixed = scaled_dot_product_attention(q, k, v)  # [B, T, heads, N, width / heads]
    out: torch.Tensor = layers["o"](mixed.transpose(-2, -3).flatten(-2))
    return out


@register
class TMM(AlignmentMethod):
    """A latent frame stands for four video frames, so a condition at its rate tells it of one in four. TMM keeps
    the conditions at full frame rate and folds each group of four into a latent frame's features [paper].

    **Audio** [code]: each video frame's features, with two neighbours on either side, become `tokens` tokens by
    three linear layers and a norm; the four frames of a group are folded into *tokens*. In each block, after the
    cross-attention to text, video tokens attend to the audio tokens of their latent frame; the result is
    added to the residual stream.

    **Skeleton** [code]: each frame of the drawn skeleton is encoded on its own and patched to a quarter of
    the width; the four frames of a group are folded into *channels*. In each block, before the feed-forward network
    and behind its norm, skeleton tokens attend to the video tokens of their latent frame; the result is
    added to what that network is given.

    All output projections start at zero [code]. First the audio path trains, then, on top of it, the skeleton path
    [paper]; a stage of preference optimisation follows as `tmm+diffusion-dpo`. Plain clips and the backbone's own
    denoising loss. Guidance's second branch is without audio and keeps the skeleton [code]; so that it
    is known, the audio of some samples is left out in training [ours].

    `fold` is the paper's ablation: `4`, `2` or `none`, which is subsampling; audio has the same parameters in all
    three. Ours: sizes, since an embedded backbone's sound is three numbers a frame and not 768 of 12 layers, and
    `order`, a learned vector for each place in the group, without which attention sees a group as a set.

    The released code also has a latent frame of zeros for its reference image; here the reference has no slot.
    """

    name = "tmm"
    paper = f"Hallo4: High-Fidelity Dynamic Portrait Animation via Direct Preference Optimization ({PAPER})"
    summary = "cross-attention to audio and skeleton of every video frame, folded into latent frames"
    separable = True
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("sync_c", ("tmm[fold=2]", "tmm[fold=none]"), f"{PAPER}, ablation: Sync-C grows with the fold [note]"),
        Claim("hkc", ("tmm[fold=2]", "tmm[fold=none]"), f"{PAPER}, ablation: HKC grows with the fold [note]"),
        Claim("sync_c", "base", "ours: the base hears three video frames of four, or fewer"),
        Claim(("sync_c", "hkc"), "sft[data=clips]", "ours: the same clips and budget, without the modulation"),
        Claim("sync_c", "tmm", f"{PAPER}, ablation: its DPO stage raises Sync-C [note]", of="tmm+diffusion-dpo"),
    )

    class Config(AlignmentMethod.Config):
        fold: Literal["4", "2", "none"] = Field(
            default="4", description="video frames told to a latent frame; none is one of four [paper]"
        )
        skeleton: bool = Field(default=True, description="the skeleton path too [paper]; false is audio alone [ours]")
        order: bool = Field(default=True, description="audio tokens tell their place in the group [ours: not in code]")
        reach: int = Field(default=2, ge=0, description="video frames of sound on either side of each [code]")
        tokens: int = Field(default=4, ge=1, description="for each video frame [ours; 32 in the code]")
        hidden: int = Field(default=64, ge=1, description="width of the audio projector [ours; 512 in the code]")
        no_audio: float = Field(default=0.1, ge=0, lt=1, description="share of samples trained without audio [ours]")
        audio_share: float = Field(
            default=0.5, gt=0, lt=1, description="of the budget; the rest is the skeleton's [ours]"
        )
        lr: float | None = Field(
            default=3e-3, gt=0, description="of layers that start from nothing; None is the profile's [ours; 1e-5 for "
            "10,000 steps in the paper, a thousand times what its LoRA-like DPO stage has: note]",
        )  # fmt: skip

    config: Config

    @property
    def places(self) -> int:
        return {"4": 4, "2": 2, "none": 1}[self.config.fold]

    def group(self, blocks: Sequence[Block]) -> tuple[int, int]:
        """(places kept, video frames) of a group; where a latent frame is one video frame there is nothing to fold."""
        span = blocks[0].span
        return min(self.places, span), span

    def stages(self) -> Sequence[Stage]:
        audio, share, lr = Insert(self.audio_layers, self.hear), self.config.audio_share, self.config.lr
        if not self.config.skeleton:
            return (Stage("tmm-audio", "clips", lr=lr, insert=audio),)
        skeleton = Insert(self.skeleton_layers, self.follow)
        return (
            Stage("tmm-audio", "clips", share=share, lr=lr, insert=audio),
            Stage("tmm-skeleton", "clips", share=1 - share, lr=lr, insert=skeleton),
        )

    # Audio: folded into tokens

    def audio_layers(self, blocks: Sequence[Block], condition: Condition) -> torch.nn.Module:
        from torch import nn

        config, width = self.config, max(block.width for block in blocks)
        what, instead = "features of each video frame's sound", "; published models hear with --audio-encoder"
        features = condition_named(condition, "audio", what, instead).shape[-1]
        layers = nn.ModuleDict({
            "project": nn.Sequential(
                nn.Linear((2 * config.reach + 1) * features, config.hidden), nn.ReLU(),
                nn.Linear(config.hidden, config.hidden), nn.ReLU(),
                nn.Linear(config.hidden, config.tokens * width), nn.Unflatten(-1, (config.tokens, width)),
                nn.LayerNorm(width),
            ),
            "blocks": nn.ModuleList([cross_attention(block, width, video_asks=True) for block in blocks]),
        })  # fmt: skip
        if config.order:
            # `fold` keeps the last of them, so all three have as many
            layers["place"] = nn.Embedding(blocks[0].span, width)
        return layers

    def hear(self, layers: Any, blocks: Sequence[Block], condition: Condition) -> Additions:
        tokens = layers["project"](windows(condition["audio"].float(), self.config.reach))  # [B, T, tokens, width]
        places, span = self.group(blocks)
        groups = fold(tokens, places, span)  # [B, 1 + n, places, tokens, width]
        if self.config.order:
            step = span // places
            groups = groups + layers["place"].weight[step - 1 :: step, None].to(groups.dtype)
        heard = groups.flatten(2, 3)

        def to_stream(number: int, video: torch.Tensor) -> torch.Tensor:
            own = layers["blocks"][number]
            return attend(own, own["norm"](video), heard, blocks[number].heads)

        return Additions(to_stream=to_stream)

    # Skeleton: folded into channels

    def skeleton_layers(self, blocks: Sequence[Block], condition: Condition) -> torch.nn.Module:
        from torch import nn

        width, patch = max(block.width for block in blocks), min(block.stride for block in blocks)
        frames = condition_named(condition, "skeleton_frames", "skeleton of each video frame", "; set skeleton=false")
        channels = width // self.group(blocks)[0]
        return nn.ModuleDict({
            "project": nn.Conv2d(frames.shape[2], channels, kernel_size=patch, stride=patch),
            "norm": nn.LayerNorm(channels),
            "blocks": nn.ModuleList([cross_attention(block, width, video_asks=False) for block in blocks]),
        })

    def follow(self, layers: Any, blocks: Sequence[Block], condition: Condition) -> Additions:
        from torch.nn.functional import avg_pool2d

        frames = condition["skeleton_frames"]
        batch, finest = len(frames), min(block.stride for block in blocks)
        patches = layers["norm"](layers["project"](frames.float().flatten(0, 1)).movedim(1, -1))  # [B·T, h, w, D / 4]
        # [B, 1 + n, places, h, w, D / places]
        groups = fold(patches.unflatten(0, (batch, -1)), *self.group(blocks))
        maps = groups.movedim(2, -2).flatten(-2).flatten(0, 1).movedim(-1, 1)  # [B·(1 + n), D, h, w]

        def to_feed_forward(number: int, video: torch.Tensor) -> torch.Tensor:
            own, block = layers["blocks"][number], blocks[number]
            here = avg_pool2d(maps, block.stride // finest)  # on the grid of this block, where a UNet has coarser ones
            asking = here.flatten(2).transpose(1, 2).unflatten(0, (batch, -1))  # [B, 1 + n, N, D]
            return attend(own, asking, own["norm"](video), block.heads)

        return Additions(to_feed_forward=to_feed_forward)

    def loss(
        self, stage: Stage, policy: Denoiser, reference: Denoiser, batch: ClipBatch | PairBatch, backbone: Backbone
    ) -> LossOutput:
        """m_θ of real clips, `no_audio` of which are shown as guidance's second branch shows them."""
        import torch

        assert isinstance(batch, ClipBatch)
        x_t, target = batch.noised(backbone)
        # Φ of a normal number is uniform; taken from the batch, so that a resumed training leaves out the same.
        silent = torch.special.ndtr(batch.noise.flatten(1)[:, 0]) < self.config.no_audio
        without = backbone.unconditional(batch.condition)
        condition = {
            name: torch.where(silent.view(-1, *[1] * (value.ndim - 1)), without[name], value)
            for name, value in batch.condition.items()
        }
        return LossOutput(error(policy(x_t, batch.t, condition), target))


def condition_named(condition: Condition, name: str, what: str, instead: str = "") -> torch.Tensor:
    if name not in condition:
        raise RequestError(f"tmm needs the {what}, and this backbone's condition has no {name}{instead}")
    return condition[name]
