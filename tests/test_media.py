"""Decoding and encoding of real files made on the spot: timing, sound, damage, hostile input."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import media_files as files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halign_bench import decoding, media
from halign_bench.errors import RequestError
from halign_bench.media import MediaError, VideoReader, fit, probe, read_audio, read_video, write_video

FASTSTART = {"movflags": "+faststart"}


def real_clip(name: str) -> Path:
    """A clip of the shared folder beside the checkout, or of the folder in HALIGN_TEST_CLIPS."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "clips"
    path = Path(os.environ.get("HALIGN_TEST_CLIPS", beside)) / name
    if not path.is_file():
        pytest.skip(f"no real clip {name}: set HALIGN_TEST_CLIPS to a folder that has it")
    return path


def numbers(path: Path, **options: object) -> list[int]:
    return [files.number_of(frame) for frame in read_video(path, **options).frames]


# -- frames and time


def test_25_fps_comes_out_frame_by_frame(tmp_path: Path) -> None:
    path = files.write(tmp_path / "a.mp4", files.numbered(40))
    video = read_video(path)
    assert video.frames.shape == (40, 48, 64, 3) and video.frames.dtype == np.uint8
    assert [files.number_of(frame) for frame in video.frames] == list(range(40))
    assert video.distinct == 40 and video.notes == ()


@pytest.mark.parametrize("fps", [10, 24, 30, 50])
def test_other_rates_give_the_nearest_frame_at_each_output_time(tmp_path: Path, fps: int) -> None:
    path = files.write(tmp_path / "a.mp4", files.numbered(40), fps=fps)
    found = numbers(path)
    assert len(found) == -(-40 * 25 // fps)  # as long as the source, to the frame
    for k, number in enumerate(found):
        assert abs(number / fps - min(k / 25, 39 / fps)) <= 0.5 / fps + 1e-9


@settings(deadline=None)
@given(
    gaps=st.lists(st.integers(1, 400), min_size=1, max_size=40),
    start=st.integers(-1000, 10**9),
    last=st.integers(1, 400),
)
def test_any_timestamps_give_the_nearest_frame(gaps: list[int], start: int, last: int) -> None:
    times = np.concatenate([[0], np.cumsum(gaps)])
    frames = [SimpleNamespace(pts=start + int(t), duration=last, width=8, height=8, ms=int(t)) for t in times]
    stream = SimpleNamespace(average_rate=Fraction(25), time_base=Fraction(1, 1000))
    timed = decoding.TimedFrames(frames, stream, "a.mp4")
    try:
        chosen = [frame.ms for frame in decoding.nearest_frames(timed)]
    except MediaError as error:
        assert "frames a second" in error.reason
        return
    for k, ms in enumerate(chosen):
        assert abs(ms - 40 * k) == np.abs(times - 40 * k).min()
    assert 40 * len(chosen) >= times[-1] + last - 5  # to its end
    assert 40 * (len(chosen) - 1) < times[-1] + last  # and no further


def test_frames_without_or_with_bad_timestamps_keep_their_order() -> None:
    stream = SimpleNamespace(average_rate=Fraction(25), time_base=Fraction(1, 1000))
    stamps = [None, None, 80, 40, 120]  # the one at 40 ms comes too late
    frames = [SimpleNamespace(pts=pts, duration=0, width=8, height=8) for pts in stamps]
    times = [float(time) for _, time in decoding.TimedFrames(frames, stream, "a.mp4")]
    assert times == [0.0, 0.04, 0.08, 0.12]


def test_start_and_frames_choose_from_the_same_sequence(tmp_path: Path) -> None:
    path = files.write(tmp_path / "a.mp4", files.numbered(36), fps=30)
    whole = numbers(path)
    assert numbers(path, start=5, frames=9) == whole[5:14]
    with pytest.raises(MediaError, match="gives 0 frames at 25 fps after frame 900"):
        read_video(path, start=900, frames=2)


def test_no_more_is_decoded_than_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.write(tmp_path / "a.mp4", files.numbered(40))
    seen = []
    real = decoding.whole_frames
    monkeypatch.setattr(media, "whole_frames", lambda *a: (seen.append(1) or frame for frame in real(*a)))
    assert len(list(VideoReader(path, frames=5))) == 5
    assert len(seen) == 6  # one more tells that the fifth is the nearest


def test_streams_that_do_not_begin_at_zero(tmp_path: Path) -> None:
    path = files.write(tmp_path / "a.mkv", files.numbered(30), video_start=3.0)
    assert numbers(path) == list(range(30))


@pytest.mark.parametrize(("height", "width"), [(47, 63), (77, 101), (48, 63)])
def test_odd_sizes(tmp_path: Path, height: int, width: int) -> None:
    frames = files.textured(6, height, width)
    path = files.write(tmp_path / "odd.mp4", frames)
    video = read_video(path)
    assert video.frames.shape == (6, height, width, 3)
    assert np.abs(video.frames.astype(int) - frames).mean() < 25  # not sheared; mpeg4 has half the colour resolution
    assert read_video(path, size=(16, 16)).frames.shape == (6, 16, 16, 3)


def test_rotation_is_honoured(tmp_path: Path) -> None:
    frames = np.zeros((4, 48, 96, 3), np.uint8)
    frames[:, :, :48, 0] = 220  # left half red, which a turn to the right brings to the top
    frames[:, :, 48:, 2] = 220
    path = files.turn_clockwise(files.write(tmp_path / "phone.mp4", frames), height=48)
    shown = read_video(path).frames
    assert shown.shape == (4, 96, 48, 3)
    assert shown[0, :40, :, 0].mean() > 150 > 60 > shown[0, :40, :, 2].mean()
    assert shown[0, 56:, :, 2].mean() > 150 > 60 > shown[0, 56:, :, 0].mean()
    info = probe(path)
    assert (info.height, info.width, info.rotation) == (96, 48, -90)


def test_oblong_pixels_become_square(tmp_path: Path) -> None:
    def wide(stream: object) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)  # type: ignore[attr-defined]

    path = files.write(tmp_path / "a.mkv", files.numbered(3), prepare=wide)
    assert read_video(path).frames.shape == (3, 48, 128, 3)
    assert probe(path).width == 128


# -- scaling and cropping


def test_portrait_is_cropped_in_favour_of_the_upper_part() -> None:
    picture = np.zeros((1920, 1080, 3), np.uint8)
    picture[:] = (np.arange(1920) * 255 // 1919).astype(np.uint8)[:, None, None]
    rows = fit(picture, (64, 64))[:, 0, 0].astype(float) / 255 * 1919
    assert abs(rows[0] - 126 - 8) < 12  # 15 % of the 840 rows too many
    assert abs(rows[-1] - (126 + 1080 - 8)) < 12


def test_landscape_keeps_its_middle() -> None:
    picture = np.zeros((50, 150, 3), np.uint8)
    picture[:, 50:100] = 200
    assert (fit(picture, (25, 25)) == 200).all()


def test_shrinking_is_the_mean_of_areas() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    means = picture.reshape(8, 4, 8, 4, 3).mean((1, 3))
    assert np.abs(fit(picture, (8, 8)) - means).max() <= 1


def test_halving_on_the_way_changes_next_to_nothing(tmp_path: Path) -> None:
    smooth = np.asarray(fit(files.textured(1, 16, 16)[0], (256, 256)))[None]
    path = files.write(tmp_path / "big.mp4", np.repeat(smooth, 2, 0))
    direct = fit(read_video(path).frames[0], (32, 32)).astype(int)
    assert np.abs(read_video(path, size=(32, 32)).frames[0] - direct).mean() < 2


SIDES = st.integers(1, 40)


@settings(deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(["1", "2", "3/4"]))
def test_fit_gives_the_size_asked_for(height: int, width: int, to_height: int, to_width: int, aspect: str) -> None:
    picture = np.full((height, width, 3), (9, 99, 199), np.uint8)
    made = fit(picture, (to_height, to_width), Fraction(aspect))
    assert made.shape == (to_height, to_width, 3) and made.dtype == np.uint8
    assert (made == picture[0, 0]).all()  # nothing from outside of the picture


# -- sound


def flash_and_beep(path: Path, fps: int, sound_codec: str = "aac", **options: object) -> Path:
    """Dark and silent, but for a white frame and the beginning of a 1 kHz tone, both at 0.8 s."""
    frames = np.zeros((fps * 3 // 2, 32, 32, 3), np.uint8)
    frames[fps * 4 // 5 :] = 255
    sound = np.zeros(44_100 * 3 // 2, np.float32)
    sound[35_280:] = files.tone(1.5, 44_100, 1000.0)[: len(sound) - 35_280]
    return files.write(path, frames, fps=fps, sound=sound, sound_codec=sound_codec, **options)  # type: ignore[arg-type]


def flash_and_beep_at(path: Path) -> tuple[float, float]:
    """Where they are found, in s."""
    frames = read_video(path).frames
    sound = read_audio(path, len(frames) / 25)
    assert sound is not None and len(sound.samples) == len(frames) * 640
    flash = int(np.argmax(frames.mean((1, 2, 3)) > 128))
    beep = int(np.argmax(np.abs(sound.samples) > 0.25))
    return flash / 25, beep / 16_000


@pytest.mark.parametrize("fps", [25, 30])
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "aac"), ("a.ts", "aac"), ("a.avi", "mp3")])
def test_flash_and_beep_stay_together(tmp_path: Path, fps: int, name: str, codec: str) -> None:
    flash, beep = flash_and_beep_at(flash_and_beep(tmp_path / name, fps, codec))
    assert abs(flash - beep) <= 0.04
    assert abs(flash - 0.8) <= 0.04
    if codec == "aac":  # AVI has no field for the delay of an mp3 encoder
        assert abs(beep - 0.8) < 0.005


def test_sound_and_picture_share_one_timeline_whatever_their_start(tmp_path: Path) -> None:
    path = flash_and_beep(tmp_path / "a.mkv", 25, video_start=2.0, sound_time=lambda seconds: seconds + 2.0)
    flash, beep = flash_and_beep_at(path)
    assert flash == 0.8 and abs(beep - 0.8) < 0.005


def test_sound_that_begins_late_is_preceded_by_silence(tmp_path: Path) -> None:
    path = files.write(
        tmp_path / "a.mkv", files.numbered(25), sound=files.tone(0.5, 44_100), sound_time=lambda seconds: seconds + 0.5
    )
    sound = read_audio(path, 1.0)
    assert sound is not None and abs(sound.first - 8000) < 400
    assert not sound.samples[: sound.first].any() and np.abs(sound.samples[8800:]).max() > 0.3
    assert "begins 0.4" in sound.notes[0] or "begins 0.5" in sound.notes[0]


def test_a_hole_in_the_sound_does_not_shift_what_follows(tmp_path: Path) -> None:
    samples = np.concatenate([np.zeros(22_528, np.float32), files.tone(0.5, 44_100)])  # 22 blocks of 1024, then a tone
    late = 22_528 / 44_100
    path = files.write(
        tmp_path / "a.mkv", files.numbered(40), sound=samples, sound_codec="pcm_s16le",
        sound_time=lambda seconds: seconds if seconds < late - 0.01 else seconds + 0.5,
    )  # fmt: skip
    sound = read_audio(path, 1.6)
    assert sound is not None
    assert abs(int(np.argmax(np.abs(sound.samples) > 0.25)) / 16_000 - (late + 0.5)) < 0.01


@pytest.mark.parametrize(("rate", "layout"), [(8000, "mono"), (44_100, "stereo"), (48_000, "5.1"), (16_000, "mono")])
def test_any_rate_and_layout_becomes_mono_16_khz(tmp_path: Path, rate: int, layout: str) -> None:
    path = files.write(tmp_path / "a.mp4", files.numbered(25), sound=files.tone(1.0, rate), rate=rate, layout=layout)
    sound = read_audio(path, 1.0)
    assert sound is not None and sound.samples.shape == (16_000,) and sound.samples.dtype == np.float32
    assert np.abs(sound.samples).max() <= 1
    power = np.abs(np.fft.rfft(sound.samples)) ** 2
    assert int(power.argmax()) == 440  # Hz, since it is one second long
    assert power[430:451].sum() > 0.9 * power.sum()


def test_sound_is_cut_or_filled_up_to_what_is_asked(tmp_path: Path) -> None:
    path = files.write_wav(tmp_path / "a.wav", files.tone(1.0, 16_000))
    shorter, longer, whole = read_audio(path, 0.25), read_audio(path, 1.5), read_audio(path)
    assert shorter is not None and longer is not None and whole is not None
    assert len(shorter.samples) == 4000 and shorter.notes == ()
    assert len(longer.samples) == 24_000 and (longer.first, longer.last) == (0, 16_000)
    assert not longer.samples[16_000:].any()
    assert longer.notes == ("sound ends 0.500 s before the video: silence after it",)
    np.testing.assert_allclose(whole.samples, files.tone(1.0, 16_000), atol=1e-4)


def test_no_sound_is_none_and_no_error(tmp_path: Path) -> None:
    assert read_audio(files.write(tmp_path / "a.mp4", files.numbered(5)), 0.2) is None


def test_sound_of_no_numbers_is_refused(tmp_path: Path) -> None:
    samples = files.tone(0.5, 16_000)
    samples[100] = np.nan
    path = files.write(tmp_path / "a.mkv", sound=samples, rate=16_000, sound_codec="pcm_f32le")
    with pytest.raises(MediaError, match="not finite"):
        read_audio(path)


# -- what is wrong with a file, in one sentence that names it


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("zero.mp4", b"", "is empty (0 bytes)"),
        ("text.mp4", b"this is a letter, not a video\n" * 40, "is not a video file that can be read"),
        ("noise.avi", bytes(range(256)) * 40, "is not a video file that can be read"),
        ("head.mp4", b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41", "is cut off or damaged"),
        ("list.mp4", b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n", "is not a video file"),
        ("script.mkv", b"ffconcat version 1.0\nfile other.mp4\n", "is not a video file"),
    ],
)
def test_what_is_no_video_is_refused_by_name(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for read in (probe, read_video, read_audio):
        with pytest.raises(RequestError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ") and sentence in str(caught.value)
        assert "\n" not in str(caught.value)


def test_missing_files_folders_and_pipes_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such file"):
        read_video(tmp_path / "nowhere.mp4")
    with pytest.raises(MediaError, match="is not a file"):
        read_video(tmp_path)
    with pytest.raises(MediaError, match="cannot be read"):
        read_video("a\0b.mp4")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.mp4")
        with pytest.raises(MediaError, match="is not a file"):
            read_video(tmp_path / "pipe.mp4")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = files.write(tmp_path / "only.mp4", sound=files.tone(0.5, 44_100))
    with pytest.raises(MediaError, match="has no video stream"):
        read_video(path)
    info = probe(path)
    assert info.width is None and info.audio_codec == "aac" and info.audio_rate == 44_100


def test_a_cut_mp4_without_its_index_says_so(tmp_path: Path) -> None:
    whole = files.write(tmp_path / "a.mp4", files.textured(25))
    with pytest.raises(MediaError, match="is cut off or damaged"):
        read_video(files.cut(whole, 0.6, tmp_path / "b.mp4"))


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mp4", "mpeg4"), ("a.avi", "mpeg4")])
def test_of_a_cut_file_the_whole_part_is_read(tmp_path: Path, name: str, codec: str) -> None:
    whole = files.write(tmp_path / name, files.textured(30), codec=codec, options=FASTSTART if ".mp4" in name else {})
    everything = read_video(whole).frames
    part = files.cut(whole, 0.6, tmp_path / f"cut{name[1:]}")
    video = read_video(part)
    count = len(video.frames)
    assert 3 <= count < 25
    np.testing.assert_array_equal(video.frames, everything[:count])  # and nothing made up behind it
    assert f"damaged or cut off after {count / 25:.2f} s ({count} whole frames)" in video.notes
    with pytest.raises(MediaError, match=rf"gives {count} frames at 25 fps, 29 are needed; damaged or cut off"):
        read_video(part, least=29)


def test_random_damage_never_escapes_as_another_error(tmp_path: Path) -> None:
    good = files.write(
        tmp_path / "a.mp4", files.textured(12, 32, 32), sound=files.tone(0.48, 44_100), options=FASTSTART
    ).read_bytes()
    path = tmp_path / "bad.mp4"
    rng = np.random.default_rng(0)
    read = 0
    for _ in range(20):
        data = bytearray(good)
        for at in rng.integers(0, len(data), 8):
            data[at] = rng.integers(256)
        path.write_bytes(data)
        for attempt in (lambda: read_video(path, frames=12), lambda: read_audio(path, 0.5), lambda: probe(path)):
            try:
                attempt()
                read += 1
            except MediaError as error:
                assert str(error).startswith(str(path))
    assert read  # some of it was readable


@pytest.mark.parametrize("name", ['it\'s a "clip".mp4', "with  spaces .mp4", "дама—☃.mp4", "http:x%20y.mp4", "-i.mp4"])
def test_any_name_is_just_a_name(tmp_path: Path, name: str) -> None:
    path = files.write(tmp_path / "a.mp4", files.numbered(3))
    path = path.rename(tmp_path / name)
    assert len(read_video(path).frames) == 3


def test_names_that_are_not_text_can_be_read_and_shown(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xff\n.mp4"
    try:
        with open(raw, "wb"):
            pass
    except OSError:
        pytest.skip("this file system takes only names that are UTF-8")
    with pytest.raises(MediaError) as caught:
        read_video(os.fsdecode(raw))
    assert str(caught.value).encode("utf-8").endswith(rb"/\xff\n.mp4: is empty (0 bytes)")


@pytest.mark.parametrize(
    ("where", "limit", "value", "sentence"),
    [
        (decoding, "MAX_PIXELS", 1000, "has frames of 64x48"),
        (decoding, "MAX_RATE", 5, "has more than 5 frames a second"),
        (decoding, "MAX_DECODED_PIXELS", 50_000, "is too long for its frame size"),
        (media, "MAX_SECONDS", 1, "is longer than 1 s"),
        (media, "MAX_BYTES", 50_000, "ask for smaller or fewer frames"),
    ],
)
def test_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: object, limit: str, value: int, sentence: str
) -> None:
    path = files.write(tmp_path / "a.mp4", files.numbered(40))
    monkeypatch.setattr(where, limit, value)
    with pytest.raises(MediaError, match=sentence):
        read_video(path)


# -- probing and writing


def test_probe(tmp_path: Path) -> None:
    path = files.write(tmp_path / "a.mp4", files.numbered(30), fps=30, sound=files.tone(1.0, 48_000), rate=48_000)
    info = probe(path)
    assert (info.width, info.height, info.fps, info.frames, info.rotation) == (64, 48, 30.0, 30, 0)
    assert (info.video_codec, info.audio_codec, info.audio_rate, info.audio_channels) == ("mpeg4", "aac", 48_000, 1)
    assert info.seconds == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_what_is_written_is_read_again(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = np.stack([fit(picture, size) for picture in files.textured(9, 8, 8)])
    path = tmp_path / "out.mp4"
    write_video(path, frames, files.tone(9 / 25, 16_000))
    video, sound = read_video(path).frames, read_audio(path, 9 / 25)
    assert video.shape == (9, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert np.abs(video[:, : size[0], : size[1]].astype(int) - frames).mean() < 6
    assert sound is not None
    assert np.corrcoef(sound.samples[1000:5000], files.tone(1.0, 16_000)[1000:5000])[0, 1] > 0.95  # in phase too
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


def test_without_libx264_it_is_mpeg4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("av.codec.codecs_available", {"mpeg4", "aac"})
    write_video(tmp_path / "out.mp4", files.textured(5))
    assert probe(tmp_path / "out.mp4").video_codec == "mpeg4"


def test_writing_refuses_nonsense_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="uint8"):
        write_video(tmp_path / "a.mp4", np.zeros((3, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="finite"):
        write_video(tmp_path / "a.mp4", files.numbered(3), np.array([np.nan], np.float32))
    (tmp_path / "file").touch()
    with pytest.raises(MediaError, match="cannot be written"):
        write_video(tmp_path / "file" / "a.mp4", files.numbered(3))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


# -- real clips


def test_real_half_body_clip() -> None:
    path = real_clip("halfbody_woman_10s.mp4")
    info = probe(path)
    assert (info.height, info.width, info.fps) == (1920, 1080, 25.0)
    assert info.frames == 250  # that so many come out is tested with the track clips
    video = read_video(path, (64, 64), frames=10)
    assert video.distinct == 10 and video.frames.std() > 20
    sound = read_audio(path)
    assert sound is not None and abs(len(sound.samples) / 16_000 - 250 / 25) <= 0.04
    assert 0.01 < sound.samples.std() < 0.3


def test_real_clip_that_drops_a_frame_is_not_called_damaged() -> None:
    video = read_video(real_clip("portrait_guitar_5s.avi"), (32, 32))
    assert len(video.frames) == 133 and video.distinct == 132 and video.notes == ()
