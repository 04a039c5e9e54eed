"""Skeletons as published pose-driven models know them."""

from __future__ import annotations

import colorsys

import numpy as np

from halign_bench.openpose import DIMMED, animate_brush, draw_openpose, dwpose_brush
from halign_bench.tracks.puppet import PuppetTrack
from halign_bench.tracks.puppet.body import BODY, LAYOUT

SIZE = (512, 512)


def pose():
    """Nose above neck, right arm straight out to the left of the picture, a right hand whose fingers lie in rows."""
    points = np.zeros((1, 52, 3), np.float32)
    for name, (x, y) in {
        "nose": (256, 100), "neck": (256, 200), "right_shoulder": (200, 200), "right_elbow": (100, 200)
    }.items():  # fmt: skip
        points[0, BODY.index(name)] = (x, y, 1)
    fingers = [(100 + 20 * joint, 340 + 30 * finger, 1) for finger in range(5) for joint in range(1, 5)]
    points[0, 31:52] = [(60, 400, 1), *fingers]
    return points


def test_limbs_joints_and_fingers_have_openposes_colours():
    (frame,) = draw_openpose(pose(), LAYOUT, SIZE, dwpose_brush(SIZE))
    assert frame.shape == (*SIZE, 3) and frame.dtype == np.uint8

    def dimmed(*colour):
        return tuple(round(DIMMED * channel) for channel in colour)

    assert tuple(frame[100, 256]) == (255, 0, 0) and tuple(frame[200, 256]) == (255, 85, 0)  # nose, neck
    assert tuple(frame[150, 256]) == dimmed(0, 0, 255)  # the thirteenth limb, between them
    assert tuple(frame[200, 228]) == dimmed(255, 0, 0) and tuple(frame[200, 150]) == dimmed(255, 170, 0)
    assert tuple(frame[400, 60]) == (0, 0, 255)  # a hand's joint
    for bone, (x, y) in {1: (130, 340), 19: (170, 460)}.items():  # of the thumb, and the last of the little finger
        hue = colorsys.hsv_to_rgb(bone / 20, 1, 1)
        assert tuple(frame[y, x]) == tuple(round(255 * channel) for channel in hue)
    assert not frame[220:330].any()


def test_what_is_not_seen_is_not_drawn_and_sizes_are_in_proportion():
    points = pose()
    points[0, BODY.index("right_elbow"), 2] = 0.1
    (frame,) = draw_openpose(points, LAYOUT, SIZE, dwpose_brush(SIZE))
    assert not frame[190:210, 80:160].any() and frame[195:205, 195:205].any()
    points = pose()
    points[..., :2] /= 4
    (small,) = draw_openpose(points, LAYOUT, (128, 128), dwpose_brush((128, 128)))
    (large,) = draw_openpose(pose(), LAYOUT, SIZE, dwpose_brush(SIZE))
    assert 0.7 < (small.any(-1).mean() / large.any(-1).mean()) < 1.5


def test_wan_animates_lines_are_thin_and_its_threshold_high():
    """Where its own code (480 and 720 pixels) has limbs of 2 and 4 pixels and joints of radius 1 and 2."""
    for size, width in (((480, 832), 2), ((720, 1280), 4)):
        (frame,) = draw_openpose(pose(), LAYOUT, size, animate_brush(size))
        limb = frame[:, 150].any(-1)  # across the upper arm
        assert abs(int(limb[190:210].sum()) - width) <= 1
    faint = pose()
    faint[..., 2] = 0.5
    assert not draw_openpose(faint, LAYOUT, SIZE, animate_brush(SIZE)).any()
    assert draw_openpose(faint, LAYOUT, SIZE, dwpose_brush(SIZE)).any()


def test_the_puppet_is_drawn_where_it_stands():
    clip = PuppetTrack().clip("eval", 0)
    frames = draw_openpose(clip.skeleton, clip.layout, (64, 64), dwpose_brush((64, 64)))
    assert frames.shape == clip.video.shape
    for frame, points in zip(frames, clip.skeleton, strict=True):
        x, y = points[BODY.index("neck"), :2].round().astype(int)
        assert frame[y, x].any()
