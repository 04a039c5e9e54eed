"""Identity embeddings by insightface's `FaceAnalysis` (SCRFD and ArcFace; Deng et al. 2019, arXiv 1801.07698)."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from halign_bench.decoding import shown
from halign_bench.errors import RequestError
from halign_bench.extractors.memo import Memo
from halign_bench.extractors.onnx_net import needed, providers, session_options
from halign_bench.track import Clip, Unscorable

WHAT = "identity embeddings"
DETECTION_SIZE = (640, 640)  # insightface 2 would also look at 128 x 128, and find other faces
DETECTION_THRESHOLD = 0.5
FILES = ("det_10g.onnx", "w600k_r50.onnx")  # of buffalo_l: the two that are used
BATCH = 32


class ArcFace:
    """dict(embedding `[F, 512]` of the F frames with a face, reference `[512]`, found bool `[T]`).

    The largest face counts, in each frame of the clip and in the condition's reference picture. Frames without one
    are left out of `embedding` and counted by `found`; a clip without any, or without one in its reference picture,
    is unscorable. Colours go to the nets as insightface expects them. Its models are for non-commercial research only.
    """

    name = "arcface"
    assets: ClassVar[tuple[str, ...]] = ("insightface-buffalo-l",)

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """From a folder with `det_10g.onnx` and `w600k_r50.onnx`. Raises RequestError when it cannot be used."""
        folder = Path(folder).absolute()
        for name in FILES:
            if not (folder / name).is_file():
                raise RequestError(f"{shown(folder)} is not insightface's buffalo_l: it has no {name}")
        chosen = providers(device, WHAT)
        with contextlib.redirect_stdout(sys.stderr):  # versions before 2 print what they find
            package, application = needed("insightface", WHAT), needed("insightface.app", WHAT)
            self._align = needed("insightface.utils.face_align", WHAT)
            try:
                self.analysis = application.FaceAnalysis(
                    str(folder), allowed_modules=["detection", "recognition"], providers=chosen,
                    sess_options=session_options(WHAT),
                )  # fmt: skip
                self.analysis.prepare(0, det_thresh=DETECTION_THRESHOLD, det_size=DETECTION_SIZE)
                detector, self._recogniser = (self.analysis.models[key] for key in ("detection", "recognition"))
            except Exception as error:  # assertions, onnxruntime's own classes, KeyError
                reason = str(error).partition("\n")[0] or type(error).__name__
                raise RequestError(f"insightface cannot use the models in {shown(folder)}: {reason}") from None
        used = [Path(model.model_file) for model in (detector, self._recogniser)]
        self._embeddings: Memo[tuple[np.ndarray, np.ndarray]] = Memo()
        self.protocol = (
            f"insightface {package.__version__}, "
            + ", ".join(f"{path.name} sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in used)
            + f", det_size {DETECTION_SIZE}, det_thresh {DETECTION_THRESHOLD}; the largest face of each frame and "
            "of the reference picture; frames without a face are left out and counted"
        )

    def __call__(self, clips: Sequence[Clip], conditions: Sequence[Clip]) -> list[Any]:
        return [self.features(clip, condition) for clip, condition in zip(clips, conditions, strict=True)]

    def features(self, clip: Clip, condition: Clip) -> dict[str, np.ndarray] | Unscorable:
        """Features of one clip; the reference picture is the condition's."""
        reference, seen = self.embeddings(condition.reference[None])
        if not seen.any():
            return Unscorable("no face found in the reference picture")
        embeddings, found = self.embeddings(clip.video)
        if not found.any():
            return Unscorable(f"no face found in {len(found)} frames")
        return {"embedding": embeddings, "reference": reference[0], "found": found}

    def embeddings(self, video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(embeddings `[F, 512]` of the frames with a face, bool `[T]` which these are) of uint8 RGB `[T, H, W, 3]`."""
        return self._embeddings.of(video, lambda: self._embed(video))

    def _embed(self, video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = np.zeros(len(video), bool)
        vectors = [np.zeros((0, 512), np.float32)]
        for start in range(0, len(video), BATCH):
            crops = [self._face(frame) for frame in video[start : start + BATCH]]
            found[start : start + BATCH] = [crop is not None for crop in crops]
            vectors += self._recognise([crop for crop in crops if crop is not None])
        return np.concatenate(vectors), found

    def _face(self, frame: np.ndarray) -> np.ndarray | None:
        """The largest face of an RGB frame, cut out upright as ArcFace wants it (BGR), or None."""
        picture = np.ascontiguousarray(frame[..., ::-1])
        boxes, landmarks = self.analysis.det_model.detect(picture)
        if not len(boxes):
            return None
        largest = (boxes[:, 2:4] - boxes[:, :2]).prod(1).argmax()
        side = self._recogniser.input_size[0]
        return np.asarray(self._align.norm_crop(picture, landmarks[largest], image_size=side))

    def _recognise(self, crops: list[np.ndarray]) -> Iterable[np.ndarray]:
        """Embeddings `[n, 512]`, all crops together where the file's batch is free."""
        if crops and isinstance(self._recogniser.input_shape[0], int):
            return [self._recogniser.get_feat(crop) for crop in crops]
        return [self._recogniser.get_feat(crops)] if crops else []
