"""What a person says of a backbone beside its name: which weights, and how long and large its clips are."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halign_bench.errors import RequestError
from halign_bench.grammar import parse_size

if TYPE_CHECKING:
    from halign_bench.backbone import Backbone

ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="The backbone's weights: a folder, or an id on the hub.", metavar="FOLDER|ID"),
]
AudioEncoderOption = Annotated[
    str | None,
    typer.Option("--audio-encoder", help="wav2vec 2.0, for methods that listen.", metavar="FOLDER|ID"),
]
FramesOption = Annotated[
    int | None, typer.Option("--frames", help="Of a clip, 1 + 4n; the model's own unless given.", metavar="N")
]
SizeOption = Annotated[
    str | None, typer.Option("--size", help="Of a clip; the model's own unless given.", metavar="WxH")
]


@dataclass(frozen=True)
class ModelChoice:
    """None is what the backbone takes by itself. The names are those of the parameters of `Backbone.load`.

    checkpoint     a folder, or an id on the hub
    audio_encoder  the same of a wav2vec 2.0 model
    frames, size   of a clip: 1 + 4n, and (height, width)
    Raises RequestError where they cannot be a clip's.
    """

    checkpoint: str | None = None
    audio_encoder: str | None = None
    frames: int | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.frames is not None and (self.frames < 5 or self.frames % 4 != 1):
            raise RequestError(f"--frames {self.frames}: a clip has 1 + 4n frames (5, 9, 13, 17, …)")

    @classmethod
    def of(
        cls, model: str | None, audio_encoder: str | None, frames: int | None, size: str | None
    ) -> ModelChoice:
        """Of what was typed. Raises RequestError."""
        return cls(model, audio_encoder, frames, None if size is None else parse_size(size))

    def absolute(self) -> ModelChoice:
        """The same for a process in another folder: what is a folder or a file here, and no id on the hub."""
        here: dict[str, Any] = {
            name: str(Path(value).absolute()) for name in ("checkpoint", "audio_encoder")
            if (value := getattr(self, name)) is not None and Path(value).exists()
        }  # fmt: skip
        return replace(self, **here)

    def load(self, backbone: Any, device: str) -> Backbone:
        """The base of a backbone's class.

        Raises RequestError for a choice that this backbone does not leave open, and where it needs one that is not
        made.
        """
        import inspect

        if self.checkpoint is None and backbone.needs_model:
            raise RequestError(
                f"backbone {backbone.name} has no weights of its own: say which with --model FOLDER, or the hub's id "
                "of a model"
            )
        open_ = inspect.signature(backbone.load).parameters
        given = {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
        for name in given:
            if name not in open_:
                option = "--model" if name == "checkpoint" else "--" + name.replace("_", "-")
                raise RequestError(f"{option}: backbone {backbone.name} does not leave that open; leave {option} out")
        loaded: Backbone = backbone.load(**given, device=device)
        return loaded


__all__ = ["AudioEncoderOption", "FramesOption", "ModelChoice", "ModelOption", "SizeOption"]
