"""`halign-bench score` beside the public programs one after another: same clips, same weights, seconds and memory.

    pip install torch-fidelity syncnet-python==0.2.3 einops scikit-image imageio-ffmpeg
    git clone https://github.com/JunyaoHu/common_metrics_on_video_quality CHECKOUT
    python benchmarks/parity/score.py CLIPS --common-metrics CHECKOUT [--seconds 5] [--size 512x512]

CLIPS is a folder of videos with sound, of more than two seconds each. Their first seconds are the real ones, and the
same with noise the generated ones. Theirs: frames written as PNG for torch-fidelity, FVD of StyleGAN-V's detector by
common_metrics_on_video_quality on 16 frames, the package syncnet-python on the generated clips, and scikit-image's
SSIM frame by frame. Ours: one command. Each program is a process of its own; seconds are of the clock, so nothing else
should run meanwhile, and memory is its largest resident set (of Linux, without child processes). Weights are random in
the published layouts, with a face detector that always sees one face in the middle: the work is real, the scores mean
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from score_assets import fill  # noqa: E402  # the tests' random weights

from halign_bench.assets.intake import add  # noqa: E402
from halign_bench.assets.store import Store  # noqa: E402
from halign_bench.media import read_audio, read_video, write_video  # noqa: E402

ASSETS = ("inception-fid", "i3d-torchscript", "syncnet-v2", "s3fd")
METRICS = "fid,fvd,sync_c,sync_d,sync_offset,ssim"

FRAMES_AS_PNG = """
import sys, pathlib
from PIL import Image
from halign_bench.media import VideoReader
for side in ("generated", "real"):
    out = pathlib.Path(sys.argv[2], side); out.mkdir()
    for clip in sorted(pathlib.Path(sys.argv[1], side).glob("*.mp4")):
        for number, frame in enumerate(VideoReader(clip)):
            Image.fromarray(frame).save(out / f"{clip.stem}-{number:05d}.png", compress_level=1)
"""

FID = """
import sys, json
sys.path.insert(0, sys.argv[3])
from peers import declare_torchvision
declare_torchvision()
from torch_fidelity import calculate_metrics
found = calculate_metrics(input1=sys.argv[1] + "/generated", input2=sys.argv[1] + "/real", fid=True, cuda=False,
                          feature_extractor_weights_path=sys.argv[2], verbose=False, cache=False,
                          feature_extractor_internal_dtype="float32")
print(json.dumps({"fid": found["frechet_inception_distance"]}))
"""

FVD = """
import sys, json, pathlib, torch
sys.path.insert(0, sys.argv[2])
from calculate_fvd import calculate_fvd
from halign_bench.media import read_video
sides = []
for side in ("generated", "real"):
    clips = [read_video(clip, frames=16).frames for clip in sorted(pathlib.Path(sys.argv[1], side).glob("*.mp4"))]
    sides.append(torch.stack([torch.from_numpy(clip) for clip in clips]).permute(0, 1, 4, 2, 3).float() / 255)
print(json.dumps({"fvd": float(calculate_fvd(*sides, "cpu", "styleganv", only_final=True)["value"][0])}))
"""

SYNC = """
import sys, json, pathlib, importlib.util, types
import numpy as np, torch
if not hasattr(np, "int"):
    np.int = int
torch.Tensor.cuda = lambda self, *_, **__: self
torch.nn.Module.cuda = lambda self, *_, **__: self
from syncnet_python.syncnet_pipeline import SyncNetPipeline
pipe = SyncNetPipeline({"s3fd_weights": sys.argv[3], "syncnet_weights": sys.argv[2], "min_track": 100}, device="cpu")
found = {}
with torch.no_grad():
    for clip in sorted(pathlib.Path(sys.argv[1], "generated").glob("*.mp4")):
        offset, confidence, distance, *_ = pipe.inference(str(clip))
        found[clip.stem] = [float(np.ravel(part)[0]) for part in (confidence, distance, offset)]
print(json.dumps(found))
"""

SSIM = """
import sys, json, pathlib
import numpy as np
from skimage.metrics import structural_similarity
from halign_bench.media import VideoReader
scores = []
for clip in sorted(pathlib.Path(sys.argv[1], "generated").glob("*.mp4")):
    pairs = zip(VideoReader(clip), VideoReader(pathlib.Path(sys.argv[1], "real", clip.name)))
    values = [structural_similarity(a, b, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                    data_range=255) for a, b in pairs]
    scores.append(float(np.mean(values)))
print(json.dumps({"ssim": float(np.mean(scores))}))
"""


def one_face(path: Path) -> None:
    """`sfd_face.pth` whose every anchor of the coarsest map sees a face of 200 pixels: one in the middle of 512x512."""
    from halign_bench.extractors.s3fd import S3FD

    net = S3FD()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.1)
        for level, (location, confidence) in enumerate(zip(net.loc, net.conf, strict=True)):
            for head in (location, confidence):
                head.weight.zero_()
                head.bias.zero_()
            confidence.bias[-1] = 6.0 if level == len(net.conf) - 1 else -6.0
            location.bias[2:] = np.log(200 / 4 / 512) / 0.2  # frames are looked at in a quarter of their size
    torch.save(net.state_dict(), path)


def make_clips(source: Path, folder: Path, seconds: float, size: tuple[int, int]) -> int:
    rng = np.random.default_rng(0)
    total = 0
    for path in sorted(path for path in source.iterdir() if path.suffix in (".mp4", ".avi", ".mov", ".mkv", ".webm")):
        frames = read_video(path, size, frames=round(25 * seconds)).frames
        sound = read_audio(path, len(frames) / 25)
        noisy = np.clip(frames + rng.normal(0, 12, frames.shape), 0, 255).astype(np.uint8)
        for side, pictures in (("real", frames), ("generated", noisy)):
            write_video(folder / side / f"{path.stem}.mp4", pictures, None if sound is None else sound.samples)
        total += len(frames)
    return total


def measured(name: str, command: Iterable[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """(seconds, MiB, stdout) of one process with its children."""
    started = time.perf_counter()
    process = subprocess.Popen([*command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    out, err = process.communicate()
    took = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{name} failed:\n{err[-2000:]}")
    peak = re.search(r"peak (\d+)\s*$", err)
    return took, int(peak.group(1)) / 1024 if peak else float("nan"), out


def with_peak(program: str) -> str:
    return (  # not ru_maxrss, which begins with what the parent had
        program + "\nimport re, sys\n"
        'print("peak", re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)\n'
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--common-metrics", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--size", default="512x512")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = os.environ | {"HALIGN_CACHE": str(folder / "cache")}
        os.environ["HALIGN_CACHE"] = environment["HALIGN_CACHE"]
        assets = fill(folder / "assets", ASSETS)
        one_face(assets / "sfd_face.pth")
        add(Store(assets), "s3fd", assets / "sfd_face.pth", trust=True)
        frames = make_clips(given.clips, folder, given.seconds, (height, width))
        shutil.copytree(given.common_metrics / "fvd", folder / "fvd")
        shutil.copy(given.common_metrics / "calculate_fvd.py", folder)
        shutil.copy(assets / "i3d_torchscript.pt", folder / "fvd" / "styleganv" / "i3d_torchscript.pt")
        if shutil.which("ffmpeg") is None and find_spec("imageio_ffmpeg"):
            import imageio_ffmpeg

            os.symlink(imageio_ffmpeg.get_ffmpeg_exe(), folder / "ffmpeg")
            environment["PATH"] = f"{folder}{os.pathsep}{environment['PATH']}"
        (folder / "png").mkdir()
        weights = [str(assets / file) for file in ("syncnet_v2.model", "sfd_face.pth")]
        inception = str(assets / "pt_inception-2015-12-05-6726825d.pth")
        programs = {
            "frames as PNG": (FRAMES_AS_PNG, [name, f"{name}/png"]),
            "FID, torch-fidelity": (FID, [f"{name}/png", inception, str(HERE)]),
            "FVD, common_metrics": (FVD, [name, name]),
            "Sync, syncnet-python": (SYNC, [name, *weights]),
            "SSIM, scikit-image": (SSIM, [name]),
        }
        print(f"{frames} frames of {width}x{height} on each side, {torch.get_num_threads()} threads")
        theirs: list[tuple[float, float]] = []
        for what, (program, arguments) in programs.items():
            seconds, memory, out = measured(what, [sys.executable, "-c", with_peak(program), *arguments], environment)
            theirs.append((seconds, memory))
            print(f"{what:28}{seconds:9.1f} s {memory:8.0f} MiB  {out.strip()[-160:]}", flush=True)
        command = ["score", f"{name}/generated", "--reference", f"{name}/real", "--metrics", METRICS, "--assets",
                   str(assets), "--out", f"{name}/out", "--json"]  # fmt: skip
        program = with_peak(f"from halign_bench.cli import main; assert main({command!r}) == 0")
        ours = [measured("halign-bench score", [sys.executable, "-c", program], environment) for _ in range(2)]
        scores = {key: value["value"] for key, value in json.loads(ours[0][2])["metrics"].items()}
        for what, (seconds, memory, _) in zip(("halign-bench score", "the same again"), ours, strict=True):
            print(f"{what:28}{seconds:9.1f} s {memory:8.0f} MiB")
        print({key: value and round(value, 4) for key, value in scores.items()})
        total, most = sum(seconds for seconds, _ in theirs), max(memory for _, memory in theirs)
        first, again = ours
        print(
            f"theirs one after another {total:.1f} s, {most:.0f} MiB: {total / first[0]:.1f} times as long, "
            f"{most / first[1]:.1f} times the memory; from the cache {first[0] / again[0]:.0f} times faster"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
