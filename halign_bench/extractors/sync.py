"""The published sync scores on anybody's videos: faces by S3FD, embeddings by SyncNet.

Two modes. `reference` goes through the published pipeline step by step, its encodings included (what of them
cannot be the same stands in `halign_bench.extractors.reencode`). `fast` takes the clip's frames as they are, and
looks for faces in every fifth frame where they keep still. Codec steps alone move the scores, so numbers of the
two modes are not to be compared; the protocol string says which it was.

A clip with several faces has one score: that of the face track with the highest confidence (Sync-C), and its
distance and offset are that track's too. joonson/syncnet_python prints all tracks and leaves the choice to the
reader; the package syncnet-python 0.2.3 takes the highest confidence and the least distance of any track, and calls
a clip without a face 0.0, which would be a perfect distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from halign_bench.errors import RequestError
from halign_bench.extractors import face_tracks, scene_cuts, syncnet
from halign_bench.extractors.face_tracks import FaceTrack, crop_faces, link_faces
from halign_bench.extractors.s3fd import SMALLEST_FRAME, FaceDetector
from halign_bench.extractors.sparse_detection import STILL, Detector, detect_sparsely
from halign_bench.extractors.syncnet import HOP, SyncEmbedder
from halign_bench.track import Clip, Unscorable

MIN_TRACK = 100  # frames; 50 in the package syncnet-python and in LatentSync
EVERY = 5  # frames from one that is looked at to the next, in the mode `fast`

Mode = Literal["fast", "reference"]


class SyncExtractor:
    """Features for Sync-C, Sync-D and the offset of each clip.

    syncnet, s3fd  weight files `syncnet_v2.model` and `sfd_face.pth`
    mode           "fast" or "reference", see the module
    min_track      a face is tracked over more frames than this; what is shorter is `Unscorable`
    every          frames between those that are looked at for faces; 5 in `fast`, always 1 in `reference`

    Raises RequestError for an unknown mode or weights in another layout.
    """

    name: str = "syncnet"
    assets: tuple[str, ...] = ("syncnet-v2", "s3fd")

    def __init__(
        self,
        syncnet: Path,
        s3fd: Path,
        device: str = "cpu",
        mode: Mode = "fast",
        min_track: int = MIN_TRACK,
        every: int | None = None,
    ) -> None:
        if mode not in ("fast", "reference"):
            raise RequestError(f"sync mode {mode!r} is unknown; there are fast and reference")
        if mode == "reference" and every not in (None, 1):
            raise RequestError("the sync mode 'reference' looks at every frame; leave `every` out")
        self.mode, self.min_track = mode, min_track
        self.name = "syncnet" if mode == "fast" else "syncnet-reference"  # their scores are not to be compared
        self.every = every if every is not None else EVERY if mode == "fast" else 1
        if self.every < 1 or min_track < face_tracks.MEDIAN:
            raise RequestError(f"`every` is at least 1, and `min_track` {face_tracks.MEDIAN} (frames)")
        detector = FaceDetector(s3fd, device)
        self.detect: Detector = detector
        self.embed = SyncEmbedder(syncnet, device)
        self.protocol = self._protocol(detector.protocol)

    def _protocol(self, detector: str) -> str:
        looked = "every frame" if self.every == 1 else (
            f"every {self.every}th frame, and all between two whose faces overlap by IoU <= {STILL}"
        )  # fmt: skip
        encoded = "frames as they are" if self.mode == "fast" else (
            "frames through MPEG-4 q2 and JPEG q2, faces through XVID and JPEG at FFmpeg's default bit rate"
        )  # fmt: skip
        return (
            f"mode {self.mode}: {encoded}; faces: {detector}, {looked}; scenes: PySceneDetect 0.6 content >= "
            f"{scene_cuts.THRESHOLD:g}; tracks: IoU > {face_tracks.OVERLAP}, gap <= {face_tracks.LONGEST_GAP}, more "
            f"than {self.min_track} frames, mean side > {face_tracks.SMALLEST} px, of several the one with the highest "
            f"confidence; crops: median of {face_tracks.MEDIAN}, margin {face_tracks.MARGIN}, padding "
            f"{face_tracks.PADDING}, {face_tracks.SIDE}x{face_tracks.SIDE}; {self.embed.protocol}; "
            f"vshift {syncnet.VSHIFT}"
        )

    def __call__(self, clips: Sequence[Clip], conditions: Sequence[Clip]) -> list[Any]:
        """For each clip `Unscorable`, or a dict of the track that counts:

        video, audio      float32 `[W, 1024]`, not normalised
        vshift            15
        first, frames     of the track within the clip
        tracks            how many there were to choose from
        looked_at, found  frames in which a face was looked for, and in which there was one
        """
        return [self.features(clip, condition) for clip, condition in zip(clips, conditions, strict=True)]

    def features(self, clip: Clip, condition: Clip) -> dict[str, Any] | Unscorable:
        if condition.audio is None:
            return Unscorable("no audio")
        height, width = clip.video.shape[1:3]
        if min(height, width) < SMALLEST_FRAME:
            return Unscorable(f"frames of {width}x{height} are too small to find faces in; {SMALLEST_FRAME} are needed")
        frames: Any = clip.video
        if self.mode == "reference":
            from halign_bench.extractors.reencode import ReencodedFrames

            frames = ReencodedFrames(clip.video)
            changes = frames.changes
        else:
            changes = scene_cuts.content_changes(frames)
        tracks, counts = self._tracks(frames, scene_cuts.scenes(changes))
        if not counts["found"]:
            return Unscorable(f"no face found in {counts['looked_at']} frames")
        usable = [track for track in tracks if track.detected > self.min_track and track.side > face_tracks.SMALLEST]
        if not usable:
            return self._why_none(tracks)
        best: dict[str, Any] | None = None
        for track in usable:
            video, audio = self._embedded(frames, condition.audio, track)
            if len(video) and (best is None or _confidence(video, audio) > _confidence(best["video"], best["audio"])):
                best = {"video": video, "audio": audio, "first": track.start, "frames": len(track.boxes)}
        if best is None:
            return Unscorable(f"sound is shorter than one sync window beside each of {len(usable)} face tracks")
        return best | counts | {"vshift": syncnet.VSHIFT, "tracks": len(usable)}

    def _tracks(self, frames: Any, shots: list[tuple[int, int]]) -> tuple[list[FaceTrack], dict[str, int]]:
        tracks: list[FaceTrack] = []
        looked_at = found = 0
        for first, stop in shots:
            faces, count = detect_sparsely(_Part(frames, first, stop), self.detect, self.every)
            looked_at += count
            found += sum(len(some) > 0 for some in faces)
            tracks += link_faces(faces, first, self.every)
        return tracks, {"looked_at": looked_at, "found": found}

    def _why_none(self, tracks: list[FaceTrack]) -> Unscorable:
        long = [track.side for track in tracks if track.detected > self.min_track]
        if long:
            return Unscorable(f"face too small: {max(long):.0f} pixels, more than {face_tracks.SMALLEST} are needed")
        longest = max((track.detected for track in tracks), default=0)
        return Unscorable(f"longest face track has {longest} frames, more than {self.min_track} are needed")

    def _embedded(self, frames: Any, audio: np.ndarray, track: FaceTrack) -> tuple[np.ndarray, np.ndarray]:
        faces = crop_faces((frames[number] for number in range(track.start, track.stop)), track)
        if self.mode == "reference":
            from halign_bench.extractors.reencode import reencode_faces

            faces = reencode_faces(faces)
        return self.embed(faces, audio[track.start * HOP : track.stop * HOP])


class _Part(Sequence[np.ndarray]):
    """Frames `[first, stop)` of others, without copying or decoding them."""

    def __init__(self, frames: Any, first: int, stop: int) -> None:
        self.frames, self.first, self.stop = frames, first, stop

    def __len__(self) -> int:
        return self.stop - self.first

    def __getitem__(self, index: Any) -> Any:
        return self.frames[self.first + index]


def _confidence(video: np.ndarray, audio: np.ndarray) -> float:
    from halign_bench.metrics.sync_c import sync_scores  # the metric's own rule says which track it is

    return sync_scores(video, audio, syncnet.VSHIFT).confidence


__all__ = ["MIN_TRACK", "Mode", "SyncExtractor"]
