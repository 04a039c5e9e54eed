"""SyncNet on random weights in the published layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from halign_bench.metrics.sync_c import sync_scores
from sync_nets import layout, syncnet_weights

from halign_bench.errors import RequestError
from halign_bench.extractors.mfcc import mfcc, pcm16
from halign_bench.extractors.syncnet import SyncEmbedder, SyncNet
from halign_bench.media import read_audio


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return syncnet_weights(tmp_path_factory.mktemp("syncnet") / "syncnet_v2.model")


@pytest.fixture(scope="module")
def embedder(weights: Path) -> SyncEmbedder:
    return SyncEmbedder(weights, batch=3)


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (12, 224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    return (0.2 * np.random.default_rng(1).standard_normal(640 * 12)).clip(-1, 1).astype(np.float32)


def test_the_layout_is_the_published_one(weights: Path) -> None:
    """Names and shapes as the public program's own net gives them (joonson/syncnet_python at 6efbb1c)."""
    assert layout(weights) == (88, "b468fca5cff22ebe459f3688a2f5c7e0e243b25ff0012f3a50dddc66bf98abae")


def test_embeddings_are_those_of_the_published_net(
    weights: Path, embedder: SyncEmbedder, faces: np.ndarray, audio: np.ndarray
) -> None:
    """Against the net as it is stored: windows of 5 frames through convolutions over time."""
    net = SyncNet()
    net.load_state_dict(torch.load(weights, weights_only=True))
    net.eval()
    cepstra = mfcc(pcm16(audio)).T.astype(np.float32)
    bgr = torch.from_numpy(faces[..., ::-1].copy()).float().permute(3, 0, 1, 2)
    with torch.inference_mode():
        seen = net.video(torch.stack([bgr[:, k : k + 5] for k in range(7)])).numpy()
        sound = torch.from_numpy(np.stack([cepstra[None, :, 4 * k : 4 * k + 20] for k in range(7)]))
        heard = net.audio(sound).numpy()
    video, voice = embedder(faces, audio)
    assert video.shape == voice.shape == (7, 1024)
    assert np.abs(video - seen).max() < 1e-4 * np.abs(seen).max()
    assert np.abs(voice - heard).max() < 1e-4 * np.abs(heard).max()
    assert np.abs(seen - seen[0]).max() > 1e-2 * np.abs(seen).max()  # windows differ, or order would not matter


def test_windows_are_as_many_as_in_the_published_code(
    embedder: SyncEmbedder, faces: np.ndarray, audio: np.ndarray
) -> None:
    assert embedder(faces[:6], audio)[0].shape == (1, 1024)  # 6 frames have two windows of 5: one is left out
    assert embedder(faces, audio[: 640 * 8 - 1])[1].shape == (2, 1024)
    assert embedder(faces[:5], audio)[0].shape == embedder(faces, audio[:0])[1].shape == (0, 1024)


def test_faces_of_another_size_are_refused(embedder: SyncEmbedder, audio: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[T, 224, 224, 3\]"):
        embedder(np.zeros((9, 112, 112, 3), np.uint8), audio)


def test_real_sound_is_found_at_its_shift_and_foreign_sound_nowhere(weights: Path, real_clip) -> None:
    """The weights are random, so the sound's own embeddings stand for what a trained net reads off the mouth."""
    net = SyncNet()
    net.load_state_dict(torch.load(weights, weights_only=True))

    @torch.inference_mode()
    def voice(samples: np.ndarray) -> np.ndarray:
        cepstra = mfcc(pcm16(samples)).T.astype(np.float32)
        windows = np.stack([cepstra[None, :, 4 * k : 4 * k + 20] for k in range(200)])
        return net.eval().audio(torch.from_numpy(windows)).numpy()

    found, other = (read_audio(real_clip(name)) for name in ("halfbody_woman_10s.mp4", "speech_other.wav"))
    assert found is not None and other is not None
    mouth, delayed, foreign = map(voice, (found.samples, np.pad(found.samples, (3 * 640, 0)), other.samples))
    own, shifted, wrong = (sync_scores(mouth, sound) for sound in (mouth, delayed, foreign))
    assert own.offset == 0 and shifted.offset == -3
    assert min(own.confidence, shifted.confidence) > 1.5 * wrong.confidence
    assert max(own.distance, shifted.distance) < wrong.distance / 3


def test_files_without_counters_are_read_and_other_layouts_refused(tmp_path: Path, weights: Path) -> None:
    tensors = torch.load(weights, weights_only=True)
    old = tmp_path / "old.model"
    torch.save({name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}, old,
               _use_new_zipfile_serialization=False)  # fmt: skip
    SyncEmbedder(old)
    torch.save(tensors | {"more": torch.zeros(1)}, old)
    with pytest.raises(RequestError, match="it has an unknown more"):
        SyncEmbedder(old)
