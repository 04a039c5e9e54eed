"""What labels say: pairs, winners, rewards, and one sentence where a method needs what they lack."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prefs_files import SIZE, jsonl, labelled, pair, video
from tiny import TinyBackbone, TinyTrack

from halign_bench.errors import RequestError
from halign_bench.feeding import Feed
from halign_bench.implicit import implicit_accuracy
from halign_bench.method import Stage
from halign_bench.plan import variant_named
from halign_bench.preferences import PreferenceSpec, collect, key_of, noise_name
from halign_bench.prefs.labelled import load, protocol_of
from halign_bench.prefs.labels import Judgement, Labels
from halign_bench.prefs.reading import read_preferences
from halign_bench.prefs.sampling import session_of

LEFT, RIGHT, TIE = 1, -1, 0


def labels(*judgements: Judgement, prompts: int = 8, real: bool = True) -> Labels:
    return Labels("labels.jsonl", prompts, [real] * prompts, judgements)


def test_pairs_are_the_lines_with_a_better_side_and_held_out_prompts_are_apart():
    found = labels(
        Judgement(0, 0, 1, {"motion": LEFT}), Judgement(0, 1, 2, {"motion": RIGHT}),
        Judgement(1, 0, 1, {"motion": TIE}), Judgement(7, 0, 1, {"motion": RIGHT}),
        Judgement(2, 0, None, {"motion": LEFT}),
    )  # fmt: skip
    pairs = found.pairs("motion")
    assert (pairs.prompt, pairs.winner, pairs.loser) == ([0, 0], [0, 2], [1, 1])
    assert found.n_train == 6 and found.pairs("motion", heldout=True).winner == [1]
    with pytest.raises(RequestError, match="no pair with a better side for fidelity among the 6 prompts to train on"):
        found.pairs("fidelity")


def test_overall_is_what_most_criteria_say_unless_it_was_labelled():
    assert Judgement(0, 0, 1, {"a": LEFT, "b": LEFT, "c": RIGHT}).sign("overall") == LEFT
    assert Judgement(0, 0, 1, {"a": LEFT, "b": RIGHT}).sign("overall") == TIE
    assert Judgement(0, 0, 1, {"a": LEFT, "b": TIE}).sign("overall") == LEFT
    assert Judgement(0, 0, 1, {"a": LEFT, "overall": RIGHT}).sign("overall") == RIGHT
    assert Judgement(0, 0, 1, {"a": LEFT}).sign("b") is None


def test_rewards_are_shares_of_wins_and_winners_the_best_of_their_prompt():
    found = labels(
        Judgement(0, 0, 1, {"motion": LEFT}), Judgement(0, 0, 2, {"motion": LEFT}), Judgement(0, 1, 2, {"motion": TIE}),
        Judgement(1, 0, 1, {"motion": TIE}), Judgement(2, 0, None, {"motion": LEFT}),
        Judgement(2, 1, None, {"motion": LEFT}), Judgement(2, 2, None, {"motion": RIGHT}),
        Judgement(7, 0, 1, {"motion": LEFT}),
    )  # fmt: skip
    assert found.rewards("motion") == {
        (0, 0): 1, (0, 1): -0.5, (0, 2): -0.5, (1, 0): 0, (1, 1): 0, (2, 0): 1, (2, 1): 1, (2, 2): -1, (7, 0): 1,
        (7, 1): -1,
    }  # fmt: skip
    winners = found.winners("motion")
    assert list(zip(winners.prompt, winners.candidate, strict=True)) == [(0, 0), (2, 0), (2, 1)]
    assert found.winners("motion", 2).prompt == [0, 2]
    with pytest.raises(RequestError, match=r"4 winners for motion asked for and labels\.jsonl gives 3"):
        found.winners("motion", 4)
    candidates = found.candidates("motion")  # a tie says neither good nor bad
    assert (candidates.prompt, candidates.reward) == ([0, 0, 0, 2, 2, 2], [1, -0.5, -0.5, 1, 1, -1])


@pytest.mark.parametrize(
    ("method", "found", "said"),
    [
        ("diffusion-dpo", labels(Judgement(0, 0, None, {"motion": LEFT})),
         "diffusion-dpo learns from pairs: labels.jsonl has no pair with a better side for overall"),
        ("tpo", labels(Judgement(0, 0, 1, {"overall": LEFT})),
         "tpo learns from pairs: labels.jsonl has no label for motion, only for overall"),
        ("kto", labels(Judgement(0, 0, None, {"motion": LEFT})),
         "kto learns from good and bad candidates: labels.jsonl has not both good and bad videos for overall"),
        ("rwr", labels(Judgement(0, 0, None, {"motion": RIGHT})), "rwr learns from good and bad candidates"),
        ("sft", labels(Judgement(0, 0, None, {"motion": RIGHT})), "sft learns from winners: labels.jsonl has no win"),
        ("ipa[winners=9]", labels(Judgement(0, 0, 1, {"motion": LEFT})), "ipa learns from winners: 9 winners for"),
        ("tmm", labels(Judgement(0, 0, 1, {"motion": LEFT}), real=False),
         "tmm learns from real clips: labels.jsonl has no real clip"),
        ("flow-grpo", labels(Judgement(0, 0, 1, {"motion": LEFT})), "flow-grpo learns from scores of its own fresh "
         "samples: labels of a file cannot score what it samples"),
    ],
)  # fmt: skip
def test_a_method_that_needs_what_the_labels_lack_says_so_in_one_sentence(method, found, said):
    with pytest.raises(RequestError) as caught:
        found.check(variant_named(method).parts[0].method)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["base", "sft", "ipa", "kto", "rwr", "diffusion-dpo", "tpo", "mapo", "sdpo", "tmm"])
def test_pairs_on_motion_and_fidelity_are_enough_for_every_other_method(method):
    judgements = [Judgement(p, 0, 1, {"motion": LEFT, "fidelity": LEFT}) for p in range(8)]
    labels(*judgements).check(variant_named(method).parts[0].method)


def test_a_file_becomes_tensors_that_belong_together(tmp_path):
    file = read_preferences(labelled(tmp_path))
    data = load(file, TinyBackbone(), TinyTrack(), tmp_path / "cache")
    backbone, track = TinyBackbone(), TinyTrack()
    assert sorted(data.ids) == [f"tiny/prompts/{n:03d}" for n in range(8)] and data.ids != sorted(data.ids)
    assert data.criteria == ("fidelity", "motion") and data.n_train == 6
    from halign_bench.media import read_video

    for row, name in enumerate(data.ids):
        number = int(name[-3:])
        clip = track.clip("prompts", number)
        assert data.identities[row] == clip.identity
        for side in (0, 1):
            frames = read_video(tmp_path / f"videos/{number}-{side}.mp4", (SIZE, SIZE)).frames
            torch.testing.assert_close(data.latents[row, side], backbone.encode(frames[None])[0])
        torch.testing.assert_close(data.real[row], backbone.encode(clip.video[None])[0])
        told = backbone.condition([clip])
        assert all(torch.allclose(value[row], told[key][0]) for key, value in data.condition.items())
    assert data.hand_mask is not None and bool(data.hand_mask.any())
    motion = data.scores[..., data.criteria.index("motion")]
    np.testing.assert_array_equal(motion, np.tile([1.0, -1.0], (8, 1)))
    counts = data.provenance["criteria"]
    assert counts["motion"] == {"pairs": 6, "heldout_pairs": 2, "winners": 6}
    assert counts["fidelity"]["pairs"] + counts["fidelity"]["heldout_pairs"] == 4
    for stage in (Stage("a", "pairs", "motion+fidelity"), Stage("a", "winners"), Stage("a", "candidates", "motion"),
                  Stage("a", "clips")):  # fmt: skip
        assert len(Feed(data, stage, 0, 4, 0, "cpu").batch(0)) == (2 if stage.data == "pairs" else 4)
    heldout = {report.criterion: report for report in implicit_accuracy(variant_named("base").parts[0].method, backbone,
                                                                        data)}  # fmt: skip
    assert heldout["motion"].pairs == 2 and heldout["motion"].accuracy == 0.5


def test_conditions_of_ones_own_are_prompts_without_a_real_clip(tmp_path):
    from PIL import Image

    from halign_bench.media import write_video

    Image.new("RGB", (40, 40), (200, 10, 10)).save(tmp_path / "anna.png")
    loud = np.sin(np.arange(6400) / 5).astype(np.float32)
    write_video(tmp_path / "voice.mp4", np.zeros((10, SIZE, SIZE, 3), np.uint8), loud)
    skeleton = np.zeros((9, 44, 3), np.float32)
    np.save(tmp_path / "pose.npy", skeleton)
    video(tmp_path / "a.mp4", 0), video(tmp_path / "b.mp4", 1)
    own = {"reference": "anna.png", "audio": "voice.mp4", "skeleton": "pose.npy", "identity": "anna"}
    lines = [pair(clip=None, condition=own), pair(clip=None, condition={"reference": "anna.png"}), pair()]
    file = read_preferences(jsonl(tmp_path / "l.jsonl", *lines))
    data = load(file, TinyBackbone(), TinyTrack(), tmp_path)
    names = ["condition:anna.png+voice.mp4+pose.npy", "condition:anna.png", "tiny/prompts/000"]
    rows = [data.ids.index(name) for name in names]
    assert [data.identities[row] for row in rows[:2]] == ["anna", "anna.png"]
    audio = data.condition["audio"][rows]
    assert bool(audio[0].any()) and not bool(audio[1].any())
    assert not bool(data.real[rows[0]].any()) and bool(data.real[rows[2]].any())
    assert all(name == "tiny/prompts/000" for name in (data.ids[p] for p in data.clips().prompt))


def test_everything_that_a_file_names_wrongly_is_told_together(tmp_path):
    video(tmp_path / "a.mp4", 0), video(tmp_path / "b.mp4", 1), video(tmp_path / "short.mp4", 2, frames=3)
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    np.save(tmp_path / "pose.npy", np.zeros((5, 7, 3)))
    (tmp_path / "image.png").write_bytes(b"no image")
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    lines = [
        pair(), pair("tiny/prompts/001", "short.mp4"), pair("tiny/prompts/002", right="broken.mp4"),
        pair("tiny/prompts/999"), pair(clip=None, condition={"reference": "image.png"}),
        pair(clip=None, condition={"reference": "good.png", "skeleton": "pose.npy"}),
        pair(clip=None, condition={"reference": "good.png", "audio": "a.mp4"}),
    ]  # fmt: skip
    with pytest.raises(RequestError) as caught:
        load(read_preferences(jsonl(tmp_path / "l.jsonl", *lines)), TinyBackbone(), TinyTrack(), tmp_path)
    said = str(caught.value).splitlines()
    assert said[0].endswith("6 problems, and nothing of the file was used")
    for line, words in zip(
        said[1:],
        ["line 2, left: short.mp4 gives 3 frames at 25 fps, 5 are needed", "line 3, right: broken.mp4 is not a video",
         "line 4, clip: tiny/prompts/999 is no training clip of track tiny", "line 5, condition.reference: image.png",
         "line 6, condition.skeleton: pose.npy is [5, 7, 3]; [5 or more, 44, 3]",
         "line 7, condition.audio: a.mp4 has no sound in its first 0.2 s"],
        strict=True,
    ):  # fmt: skip
        assert words in line


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([pair(left="none.mp4")], "left: none.mp4 does not exist; names are relative to the preference file"),
        ([pair(left="/a.mp4")], "left: /a.mp4 is absolute"),
        ([pair(left="https://x.org/a.mp4")], "left: https://x.org/a.mp4 is an address; fetch the file"),
        ([pair(left="videos")], "left: videos is not a file"),
        ([pair(left="a\x00b")], "left: a\\x00b does not exist"),
        ([pair(session="nowhere", left=0, right=1)], "nowhere: holds no session.json, so it is no session"),
        ([pair(), pair(left="b.mp4", right="a.mp4")], "line 2, left: the same two videos as in line 1, and no annot"),
        ([pair(annotator="kim"), pair(annotator="kim")], "line 2, left: the same two videos as in line 1, by kim"),
        ([pair(), pair("x")], None),
        ([pair(annotator="kim"), pair(annotator="lee"), pair("x")], None),
        ([pair()], "all its lines are of one prompt; at least 2 are needed"),
        ([pair(clip=None, condition={"reference": "a.mp4", "identity": "x"}),
          pair(clip=None, condition={"reference": "a.mp4"})], "line 2, condition.identity: is not given and was x in"),
    ],
)  # fmt: skip
def test_lines_are_checked_against_files_and_each_other(tmp_path, lines, said):
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"x")
    path = jsonl(tmp_path / "l.jsonl", *lines)
    if said is None:
        assert read_preferences(path).labels.judgements
        return
    with pytest.raises(RequestError) as caught:
        read_preferences(path)
    assert said in str(caught.value)


def test_the_content_hash_follows_videos_and_lines_but_not_places(tmp_path):
    first = protocol_of(read_preferences(labelled(tmp_path / "here")))
    assert protocol_of(read_preferences(labelled(tmp_path / "there"))) == first
    video(tmp_path / "there" / "videos" / "0-0.mp4", 99)
    changed = protocol_of(read_preferences(tmp_path / "there" / "labels.jsonl"))
    assert changed["file_sha256"] == first["file_sha256"] and changed["contents_sha256"] != first["contents_sha256"]
    path = tmp_path / "here" / "labels.jsonl"
    path.write_text(path.read_text().replace("tie", "left"))
    again = protocol_of(read_preferences(path))
    assert again["file_sha256"] != first["file_sha256"] and again["contents_sha256"] == first["contents_sha256"]


def test_candidates_of_a_session_are_the_latents_that_were_sampled(tmp_path):
    spec = PreferenceSpec(prompts=4, candidates=3, nfe=2)
    sampled = collect(TinyBackbone(), TinyTrack(), spec, tmp_path / "cache")
    sources = {name: sampled.provenance[name] for name in (
        "format", "spec", "backbone", "base_sha256", "precision", "track", "annotator", "prompts")}  # fmt: skip
    assert key_of(sources) == sampled.provenance["key"]
    session = session_of(sampled, sources, spec, ("motion",), tmp_path / "s")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "session.json").write_text(session.model_dump_json(by_alias=True))
    assert session.prompts[1].candidates[2].noise.name == noise_name("tiny/prompts/001", 2)
    lines = [pair(f"tiny/prompts/{n:03d}", 2, 1, session="s") for n in range(4)]
    path = jsonl(tmp_path / "l.jsonl", *lines)
    backbone = TinyBackbone()
    data = load(read_preferences(path), backbone, TinyTrack(), tmp_path / "cache")
    assert backbone.forwards == 0  # nothing is sampled twice
    for row, name in enumerate(data.ids):
        assert torch.equal(data.latents[row], sampled.latents[sampled.ids.index(name)][[2, 1]])
    with pytest.raises(RequestError, match=r"made with another base_sha256 than this run has; .*--videos"):
        load(read_preferences(path), TinyBackbone(seed=1), TinyTrack(), tmp_path / "cache")
    for wrong, said in ((pair("tiny/prompts/000", 3, 1, session="s"), "3 is no candidate of tiny/prompts/000"),
                        (pair("tiny/prompts/007", 0, 1, session="s"), "is none of the 4 clips of s")):  # fmt: skip
        with pytest.raises(RequestError, match=said):
            read_preferences(jsonl(tmp_path / "wrong.jsonl", wrong))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3), st.integers(0, 3), st.sampled_from([1, 0, -1])),
                min_size=1, max_size=12))  # fmt: skip
def test_whatever_is_said_winners_won_and_rewards_of_a_pair_cancel(rows):
    found = labels(*[Judgement(p, a, b, {"motion": s}) for p, a, b, s in rows if a != b])
    rewards = found.rewards("motion")
    assert all(-1 <= reward <= 1 for reward in rewards.values())
    try:
        winners = found.winners("motion")
    except RequestError:
        return
    for prompt, candidate in zip(winners.prompt, winners.candidate, strict=True):
        same = [reward for (p, _), reward in rewards.items() if p == prompt]
        assert prompt < found.n_train and rewards[prompt, candidate] == max(same) > 0
