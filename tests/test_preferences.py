"""Preferences: what makes a pair and a winner, and a cache that never answers with something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny import TinyAnnotator, TinyBackbone, TinyTrack

from halign_bench.errors import HalignError, RequestError
from halign_bench.masks import hand_mask
from halign_bench.preferences import PreferenceSet, PreferenceSpec, collect
from halign_bench.sampling import initial_noise, sample

SPEC = PreferenceSpec(prompts=10, candidates=3, nfe=2, chunk=4)


def scored(scores, n_train=None, min_margin=0.0, criteria=("motion", "fidelity")) -> PreferenceSet:
    """A set with given scores `[P, K, 2]` and nothing else of interest."""
    scores = np.asarray(scores, dtype=np.float64)
    prompts, candidates = scores.shape[:2]
    names = [str(i) for i in range(prompts)]
    return PreferenceSet(
        names, names, torch.zeros(prompts, candidates, 1, 1, 1, 1), torch.zeros(prompts, 1, 1, 1, 1), {}, None,
        criteria, scores, prompts if n_train is None else n_train, min_margin,
    )


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    return collect(TinyBackbone(), TinyTrack(), SPEC, tmp_path_factory.mktemp("cache"))


def test_pairs_are_best_against_worst_with_a_margin_in_standard_deviations():
    data = scored([[[3, 0], [1, 0], [5, 1]], [[2, 0], [2, 0], [2, 5]]])
    pairs = data.pairs("motion")  # the second prompt's candidates move alike: no pair
    assert (pairs.prompt, pairs.winner, pairs.loser) == ([0], [2], [1])
    spread = np.sqrt((0**2 + 2**2 + 2**2 + 0) / (2 + 2))  # among candidates of one prompt
    assert pairs.margin == pytest.approx([4 / spread])
    assert data.pairs("fidelity").winner == [2, 2]
    # overall: the mean of the two criteria, each in its own standard deviations
    apart = data.standardised("motion"), data.standardised("fidelity")
    np.testing.assert_allclose(data.standardised("overall"), (apart[0] + apart[1]) / 2)
    motion, fidelity = data.standardised("motion"), data.standardised("fidelity")
    np.testing.assert_allclose(data.standardised("overall"), (motion + fidelity) / 2)


def test_hard_prompts_do_not_decide_what_a_criterion_weighs():
    # Fidelity differs by 100 between prompts and by 1 within them, motion by 1 within: they weigh alike.
    data = scored([[[0, 100], [1, 102]], [[0, 0], [1, -2]], [[0, 50], [1, 52]]], min_margin=0.1)
    margins = data.pairs("overall").margin
    assert data.standardised("fidelity")[0] == pytest.approx([-np.sqrt(0.5), np.sqrt(0.5)])
    assert margins == pytest.approx([np.sqrt(2), np.sqrt(2)]) and data.pairs("overall").prompt == [0, 2]
    assert data.pairs("fidelity").winner == [1, 0, 1]


def test_a_margin_drops_pairs_that_are_too_close():
    scores = [[[0, 0], [1, 0]], [[0, 0], [9, 1]]]
    spread = np.sqrt((1**2 / 2 + 9**2 / 2) / 2)
    assert scored(scores, min_margin=0.5 * 9 / spread).pairs("motion").prompt == [1]
    assert scored(scores, min_margin=0.5 / spread).pairs("motion").prompt == [0, 1]


def test_winners_are_the_best_of_their_prompt():
    data = scored([[[9, 0], [8, 0]], [[1, 0], [2, 0]], [[3, 0], [3, 0]]])
    winners = data.winners("motion")
    assert (winners.prompt, winners.candidate) == ([0, 1], [0, 1])  # of the third prompt none is ahead


def test_winners_can_be_limited_to_the_best_of_them():
    data = scored([[[9, 0], [0, 0]], [[7, 0], [0, 0]], [[8, 0], [0, 0]]])
    two = data.winners("motion", 2)
    assert (two.prompt, two.candidate) == ([0, 2], [0, 0])
    assert two.reward == [data.standardised("motion")[0, 0], data.standardised("motion")[2, 0]]
    assert data.winners("motion", 3) == data.winners("motion")
    with pytest.raises(RequestError, match="4 winners for motion asked for and there are 3"):
        data.winners("motion", 4)


def test_candidates_are_all_that_could_be_scored_with_their_reward():
    nan = float("nan")
    data = scored([[[1, 0], [nan, 0], [3, 0]], [[nan, 0], [nan, 0], [2, 0]], [[9, 0], [9, 0], [9, 0]]], n_train=2)
    found = data.candidates("motion")
    assert list(zip(found.prompt, found.candidate, strict=True)) == [(0, 0), (0, 2), (1, 2)]
    assert found.reward == pytest.approx([-np.sqrt(0.5), np.sqrt(0.5), 0])  # the last has nothing to be compared with
    with pytest.raises(RequestError, match="no candidate was scored on fidelity"):
        scored(np.full((2, 2, 2), nan)).candidates("fidelity")


def test_the_union_of_two_criteria_keeps_pairs_that_contradict():
    data = scored([[[3, 0], [1, 5]], [[2, 1], [0, 0]]])
    pairs = data.pairs("motion+fidelity")
    assert list(zip(pairs.prompt, pairs.winner, pairs.loser, strict=True)) == [
        (0, 0, 1), (1, 0, 1), (0, 1, 0), (1, 0, 1)
    ]  # fmt: skip
    assert pairs.margin == data.pairs("motion").margin + data.pairs("fidelity").margin


def test_identical_scores_give_no_pair_and_no_winner_but_one_clear_sentence():
    data = scored(np.ones((4, 3, 2)))
    with pytest.raises(RequestError, match=r"no preference pair for motion.*sample more"):
        data.pairs("motion")
    with pytest.raises(RequestError, match="no winner for overall"):
        data.winners()
    assert data.summary()["criteria"]["overall"] == {"pairs": 0, "heldout_pairs": 0, "winners": 0}
    with pytest.raises(RequestError, match=r"criterion beauty.*motion, fidelity, overall"):
        data.pairs("beauty")


def test_candidates_that_could_not_be_scored_take_no_part():
    nan = float("nan")
    data = scored([[[1, 0], [nan, 0], [3, 0]], [[nan, 0], [nan, 0], [2, 0]]])
    pairs = data.pairs("motion")
    assert (pairs.prompt, pairs.winner, pairs.loser) == ([0], [2], [0])
    assert data.winners("motion").prompt == [0]  # of the other only one was scored
    assert data.summary()["unscored"] == 3


def test_heldout_prompts_are_never_trained_on_nor_used_to_standardise():
    scores = np.random.default_rng(0).normal(size=(8, 4, 2))
    data = scored(scores, n_train=6)
    assert max(data.pairs().prompt) < 6 <= min(data.pairs(heldout=True).prompt)
    assert max(data.winners().prompt) < 6 and max(data.clips().prompt) < 6
    scores[6:] *= 100
    np.testing.assert_array_equal(scored(scores, n_train=6).standardised("motion")[:6], data.standardised("motion")[:6])


@settings(max_examples=60, deadline=None)
@given(
    scores=hnp.arrays(np.float64, (5, 4, 2), elements=st.floats(-100, 100)),
    scale=st.floats(0.01, 100), shift=st.floats(-100, 100),
)
def test_pairs_follow_the_annotator_whatever_its_unit(scores, scale, shift):
    scores = np.round(scores, 3)
    try:
        pairs = scored(scores).pairs("motion")
    except RequestError:
        assert all(np.ptp(row) == 0 for row in scores[..., 0])
        return
    for prompt, winner, loser, margin in zip(pairs.prompt, pairs.winner, pairs.loser, pairs.margin, strict=True):
        assert scores[prompt, winner, 0] == scores[prompt, :, 0].max()
        assert scores[prompt, loser, 0] == scores[prompt, :, 0].min()
        assert margin > 0
    rescaled = scored(scores * scale + shift).standardised("motion")
    np.testing.assert_allclose(rescaled, scored(scores).standardised("motion"), atol=1e-4)


def test_candidates_are_what_the_base_makes_of_the_prompt(collected):
    backbone, track = TinyBackbone(), TinyTrack()
    clip = track.clip("prompts", 5)
    noise = initial_noise(backbone, [f"{clip.id}#candidate2"], SPEC.seed)
    again = sample(backbone, backbone.condition([clip]), noise, nfe=SPEC.nfe)
    torch.testing.assert_close(collected.latents[5, 2], again[0], rtol=1e-4, atol=1e-5)
    expected = TinyAnnotator()(backbone.decode(collected.latents[5, 2:3])[0], clip)
    assert collected.scores[5, 2].tolist() == pytest.approx([expected["motion"], expected["fidelity"]])
    torch.testing.assert_close(collected.real[5], backbone.encode(clip.video[None])[0])
    assert collected.ids[5] == clip.id and collected.identities[5] == clip.identity
    torch.testing.assert_close(collected.condition["audio"][5], backbone.condition([clip])["audio"][0])
    assert collected.n_train == 8 and len(collected.ids) == 10  # a quarter of 10, rounded


def test_provenance_says_where_it_comes_from(collected):
    provenance = collected.provenance
    assert provenance["base_sha256"] == TinyBackbone().base_sha256
    assert provenance["annotator"] == TinyAnnotator.protocol
    assert provenance["spec"] == SPEC.model_dump(mode="json")
    assert provenance["track"] == TinyTrack().fingerprint()
    assert provenance["criteria"]["overall"]["pairs"] > 0
    import json

    assert json.loads(json.dumps(provenance)) == provenance


def test_a_second_collection_reads_the_cache(tmp_path):
    first_backbone, second_backbone = TinyBackbone(), TinyBackbone()
    reports = []
    first = collect(first_backbone, TinyTrack(), SPEC, tmp_path, lambda *report: reports.append(report))
    second = collect(second_backbone, TinyTrack(), SPEC, tmp_path)
    assert first_backbone.forwards == 10 * 3 * 2 and second_backbone.forwards == 0
    assert torch.equal(first.latents[:], second.latents[:]) and np.array_equal(first.scores, second.scores)
    assert torch.equal(first.hand_mask[:], second.hand_mask[:])
    assert first.provenance == second.provenance
    assert reports == [(0, 30), (12, 30), (24, 30), (30, 30)]


def test_an_interrupted_collection_goes_on_where_it_was(tmp_path):
    def stop(done, total):
        if done >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(TinyBackbone(), TinyTrack(), SPEC, tmp_path, stop)
    backbone, reports = TinyBackbone(), []
    resumed = collect(backbone, TinyTrack(), SPEC, tmp_path, lambda *report: reports.append(report))
    assert reports[0] == (12, 30) and backbone.forwards == 6 * 3 * 2
    whole = collect(TinyBackbone(), TinyTrack(), SPEC, tmp_path / "other")
    assert torch.equal(resumed.latents[:], whole.latents[:]) and np.array_equal(resumed.scores, whole.scores)


@pytest.mark.fault(
    "preferences: a file of the cache is cut, flipped in a bit, empty, gone or of another key",
    "made again, to the same bits",
)
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "gone", "foreign"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    first = collect(TinyBackbone(), TinyTrack(), SPEC, tmp_path)
    files = sorted(tmp_path.glob("preferences/*/*.safetensors"))
    assert len(files) == 3
    content = files[1].read_bytes()
    if damage == "cut":
        files[1].write_bytes(content[:-100])
    elif damage == "flipped":
        files[1].write_bytes(content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    elif damage == "empty":
        files[1].write_bytes(b"")
    elif damage == "gone":
        files[1].unlink()
    else:
        files[1].write_bytes(files[0].read_bytes().replace(first.provenance["key"].encode(), b"0" * 64))
    backbone = TinyBackbone()
    again = collect(backbone, TinyTrack(), SPEC, tmp_path)
    assert backbone.forwards == 4 * 3 * 2  # that chunk and no other
    assert torch.equal(first.latents[:], again.latents[:]) and np.array_equal(first.scores, again.scores)
    untouched = TinyBackbone()
    collect(untouched, TinyTrack(), SPEC, tmp_path)
    assert untouched.forwards == 0


def test_the_key_changes_with_everything_that_matters(tmp_path):
    class Stricter(TinyAnnotator):
        protocol = "another annotator"

    class Relabelled(TinyTrack):
        def annotator(self):
            return Stricter()

    def key(backbone=None, track=None, **changes):
        spec = PreferenceSpec(**{"prompts": 2, "candidates": 2, "nfe": 2, **changes})
        return collect(backbone or TinyBackbone(), track or TinyTrack(), spec, tmp_path).provenance["key"]

    keys = [
        key(), key(seed=1), key(nfe=4), key(candidates=3), key(guidance=2.0), key(min_margin=0.1),
        key(backbone=TinyBackbone(seed=1)), key(track=TinyTrack(prompts=14)), key(track=Relabelled()),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]


def test_requests_that_cannot_be_answered(tmp_path):
    with pytest.raises(RequestError, match="at least 2"):
        collect(TinyBackbone(), TinyTrack(prompts=1), SPEC, tmp_path)

    class Unlabelled(TinyTrack):
        def annotator(self):
            raise NotImplementedError

    with pytest.raises(RequestError, match="no annotator"):
        collect(TinyBackbone(), Unlabelled(), SPEC, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_hand_mask_covers_the_hands_and_nothing_else():
    track, backbone = TinyTrack(), TinyBackbone()
    clip = track.clip("prompts", 0)
    skeleton = clip.skeleton.copy()
    skeleton[:, :, 2] = 0  # nothing visible but the left hand, which sits in the pixels [0, 4) of frame 0 alone
    skeleton[0, clip.layout.left_hand, 2] = 1
    skeleton[0, clip.layout.left_hand, :2] = np.linspace(0.5, 2.5, 21)[:, None]
    from dataclasses import replace

    mask = hand_mask(replace(clip, skeleton=skeleton), backbone.latent_shape())
    assert mask.shape == (1, 2, 4, 4)
    assert mask[0, 0, 0, 0] == 1.0 and float(mask.sum()) == 1.0  # padded by 0.3 pixels: one whole latent cell
    assert float(hand_mask(replace(clip, skeleton=None), backbone.latent_shape()).sum()) == 0


def test_latents_in_any_memory_layout_are_kept(tmp_path):
    """A codec may hand out a view; the cache writes it all the same."""
    from halign_bench.chunks import read_chunk, write_chunk

    view = torch.arange(24.0).view(2, 3, 4).transpose(0, 2)
    chunk = {"tensors": {"real": view}, "ids": ["a"], "identities": ["x"]}
    write_chunk(tmp_path / "0.safetensors", "key", chunk)
    assert torch.equal(read_chunk(tmp_path / "0.safetensors", "key")["tensors"]["real"], view)


def test_joined_tensors_answer_as_one_whichever_way_they_are_asked(tmp_path):
    from safetensors.torch import save_file

    from halign_bench.joined import Joined, Stored

    whole = torch.arange(5 * 3 * 2.0).view(5, 3, 2)
    parts = []
    for number, part in enumerate(whole.split([2, 1, 2])):
        save_file({"x": part.contiguous()}, tmp_path / f"{number}.safetensors")
        parts.append(Stored(tmp_path / f"{number}.safetensors", "x", tuple(part.shape)))
    for joined in (Joined(parts), Joined([parts[0], whole[2:3], parts[2]])):
        assert joined.shape == whole.shape and len(joined) == 5
        for index in (3, -1, slice(None), slice(1, 4), [4, 0, 4], (2, 1), (3, slice(1, 3)), ([4, 0, 2], [2, 0, 1])):
            assert torch.equal(joined[index], whole[index])
        with pytest.raises(IndexError):
            joined[5]


def test_a_file_that_is_cut_while_it_is_in_use_is_an_error_that_names_it(tmp_path):
    data = collect(TinyBackbone(), TinyTrack(), SPEC, tmp_path)
    file = sorted(tmp_path.glob("preferences/*/*.safetensors"))[1]
    file.write_bytes(file.read_bytes()[:-100])
    assert data.latents[0].isfinite().all()
    with pytest.raises(HalignError, match=f"{file.name} can no longer be read"):
        data.latents[[0, 4]]


MUCH = """
import sys
import torch
from pathlib import Path
from halign_bench.feeding import Feed
from halign_bench.preferences import PreferenceSpec, collect_candidates, key_of, sources_of
from halign_bench.method import Stage
from tiny import TinyAnnotator, TinyBackbone, TinyTrack
import halign_bench.chunks as chunks

def anonymous():
    return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) // 1024

spec = PreferenceSpec(prompts=12, candidates=2, nfe=1, chunk=1)
backbone, track, annotator = TinyBackbone(), TinyTrack(), TinyAnnotator()
key = key_of(sources_of(backbone, track, annotator, spec))
for prompt in range(12):
    scores = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    latents = torch.full((1, 2, 4, 2, 1024, 1024), float(prompt))  # 64 MiB
    chunks.write_chunk(
        Path(sys.argv[1]) / "preferences" / key[:32] / f"{prompt:05d}.safetensors", key,
        {"tensors": {"latents": latents, "real": torch.zeros(1, 4, 2, 4, 4), "scores": scores}, "ids": [str(prompt)],
         "identities": ["x"]},
    )
del latents
before = anonymous()
data = collect_candidates(backbone, track, annotator, spec, Path(sys.argv[1]))
first = data.latents[[1, 8], [0, 1]]
assert first[:, 0, 0, 0, 0].tolist() == [1.0, 8.0] and backbone.forwards == 0
print(anonymous() - before)
"""


def test_what_is_held_in_memory_is_the_batch_and_not_the_set(tmp_path):
    """768 MiB of latents, of which two clips of 32 MiB each are asked for."""
    import subprocess
    import sys

    made = subprocess.run(
        [sys.executable, "-c", MUCH, str(tmp_path)], cwd=Path(__file__).parent, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert int(made.stdout) < 200
