"""How far motion is from the target's, too little and too much alike."""

from __future__ import annotations

from halign_bench.metric import PerClipMetric, Scored
from halign_bench.registry import register
from halign_bench.track import Unscorable

from .motion import motion_magnitude


def relative_gap(ours: float, theirs: float) -> float:
    """|a - b| / (a + b) in [0, 1]; 0 when equal, 1 when exactly one of them is zero.

    >>> relative_gap(0.0, 2.0), relative_gap(2.0, 2.0), relative_gap(3.0, 1.0), relative_gap(0.0, 0.0)
    (1.0, 0.0, 0.5, 0.0)
    """
    return abs(ours - theirs) / (ours + theirs) if ours + theirs else 0.0


@register
class MotionGap(PerClipMetric):
    """Per clip, so that frozen and restless clips do not average to a good ratio: 1 frozen, 0 as the target."""

    name = "motion_gap"
    unit = "relative difference"
    higher_is_better = False
    bounds = (0, 1)
    summary = "distance of motion magnitude from the target's (1 = frozen)"
    recipe = "|a - b| / (a + b) of the motion magnitudes of clip and target"

    def measure(self, scored: Scored) -> float | Unscorable:
        ours, theirs = motion_magnitude(scored.clip.video), motion_magnitude(scored.target.video)
        if ours is None or theirs is None:
            return Unscorable("single frame")
        return relative_gap(ours, theirs)
