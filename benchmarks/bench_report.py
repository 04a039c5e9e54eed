"""How long a report takes to make and to open: `python benchmarks/bench_report.py`.

Makes synthetic records (--methods 20, --seeds 5, --clips 200) in a temporary folder, six scores of every clip at two
NFEs; writes their report in a process of its own, and again with made-up videos of twelve clips for each method; opens
that from disk in Chromium, and prints

    made        seconds and peak memory of `halign-bench report` (no adapters: no videos)
    size        of that folder, and of the page alone
    milliseconds, medians of --times
        answers after, load after   DOMContentLoaded, when every table can be sorted, and `load`
        figure, gallery             from scrolling there for the first time until the first one shows, until clips do
        sorted, filtered            from the click or letter to the end of the frame in which it shows
        entry, its pictures         from the click on another clip to the end of the frame in which its scores and
                                    tiles show, and until every video in it shows its first picture
        longest                     between two frames while the page is scrolled to its end, figures drawn on the way

Measured three times with 20 x 5 x 200 and --times 5 on two cores of a Xeon that other work kept busy, Chromium 156:
made in 6 to 13 s and 0.30 GB; 1.87 MB in all; answers after 0.33 to 0.35 s, loaded after 0.33 to 0.37 s; sorted in 23
to 28 ms, filtered in 18 to 21 ms; an entry of the gallery in 40 to 44 ms, its six videos in 93 to 104 ms; the gallery
in 0.15 s, the first figure in 0.44 to 0.48 s (with the library that draws it); longest frame 51 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from browser import chromium, until
from records import make_record, score
from report_records import with_made_up_samples

from halign_bench.cli import main as cli
from halign_bench.companions import ClipScore
from halign_bench.record import Bootstrap, Timings, Training
from halign_bench.results import write_record
from halign_bench.stats import bootstrap_indices, bootstrap_signature, percentile_interval, resampled_means

SCORES = {"sync_c": True, "sync_d": False, "hkc": True, "csim": True, "ssim": True, "psnr": True}
NFES = (20, 10)
REPLICATES = 200


def write(folder: Path, methods: int, seeds: int, clips: int) -> None:
    ids = [f"clip/{i:05d}" for i in range(clips)]
    people = [f"person{i // 4:04d}" for i in range(clips)]
    draws = bootstrap_indices(ids, people, REPLICATES, 0)
    bootstrap = Bootstrap(
        replicates=REPLICATES, seed=0, clips=clips, identities=len(set(people)),
        sha256=bootstrap_signature(ids, people, REPLICATES, 0),
    )  # fmt: skip
    protocol = {"evaluation": {"nfe": list(NFES)}, "training": {"samples": 1600}}
    hard = np.random.default_rng(0).normal(size=clips)
    for number in range(methods):
        name = ("base", "sft")[number] if number < 2 else f"method-{number:02d}"
        for seed in range(seeds):
            rng = np.random.default_rng([number, seed])
            metrics, rows = {}, []
            for metric, up in SCORES.items():
                for nfe in NFES:
                    key, values = f"{metric}@toy/nfe{nfe}", hard + number / 20 + rng.normal(0, 0.3, clips)
                    resampled = resampled_means([float(v) for v in values], draws)
                    mean = float(values.mean())
                    ci = percentile_interval(mean, resampled, len(set(people)))
                    metrics[key] = score(mean, ci, n=clips, higher_is_better=up)
                    rows += [ClipScore(*of, key, float(v)) for *of, v in zip(ids, people, values, strict=True)]
            for nfe in NFES:
                metrics[f"seconds_per_second@toy/nfe{nfe}"] = score(nfe / 10, higher_is_better=False)
            record = make_record(
                name, seed, metrics=metrics, bootstrap=bootstrap, protocol=protocol,
                timings=Timings(train=60.0, chunks={str(nfe): [nfe / 10.0] * 6 for nfe in NFES}),
                training=Training(samples_seen=1600, steps=100, trained_parameters=1000),
            )  # fmt: skip
            write_record(folder / f"{name}-s{seed}.json", record, rows, {})


SHOWN = "(act => new Promise(done => { const t = performance.now(); act(); requestAnimationFrame(() => "
SHOWN += "setTimeout(() => done(performance.now() - t))); }))"


def opened(window, address: str) -> dict[str, float]:
    window.get(address)
    until(window, "performance.getEntriesByType('navigation')[0].loadEventEnd > 0 && Boolean(halign.leaderboard)")
    ready, loaded = window.execute_script(
        "const one = performance.getEntriesByType('navigation')[0];"
        "return [one.domContentLoadedEventEnd, one.loadEventEnd]"
    )
    took = {"answers after": ready, "load after": loaded}
    took["sorted"] = window.execute_script(
        f"return {SHOWN}(() => document.querySelectorAll('#leaderboard-table thead [role=button]')[3].click())"
    )
    took["filtered"] = window.execute_script(
        f"return {SHOWN}(() => halign.leaderboard.search('method-1').draw())"
    )
    for name, near, there in (
        ("gallery", "#gallery", "document.querySelectorAll('button.clip').length"),
        ("figure", "#figures", "document.querySelector('.canvas canvas')"),
    ):
        took[name] = window.execute_async_script(f"""
            const done = arguments[0], start = performance.now();
            document.querySelector('{near}').scrollIntoView();
            const look = () => ({there} ? done(performance.now() - start) : requestAnimationFrame(look));
            look();
        """)
    pictures = "[...document.querySelectorAll('#gallery-player video')]"
    ready = f"{pictures}.length > 4 && {pictures}.every(one => one.readyState >= 2 && !one.seeking)"
    until(window, ready)
    took["entry"], took["its pictures"] = window.execute_async_script(f"""
        const done = arguments[0], start = performance.now();
        document.querySelectorAll('button.clip')[1].click();
        let shown = 0;
        requestAnimationFrame(() => setTimeout(() => {{ shown = performance.now() - start; }}));
        const look = () => (
            shown && {ready} ? done([shown, performance.now() - start]) : requestAnimationFrame(look)
        );
        look();
    """)
    took["longest"] = window.execute_async_script("""
        const done = arguments[0];
        let at = 0, last = performance.now(), longest = 0;
        scrollTo(0, 0);
        const frame = () => {
            const now = performance.now();
            longest = Math.max(longest, now - last);
            last = now;
            scrollTo(0, at += 40);
            if (at < document.documentElement.scrollHeight) requestAnimationFrame(frame);
            else done(longest);
        };
        requestAnimationFrame(frame);
    """)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("methods", 20), ("seeds", 5), ("clips", 200), ("times", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run, out = Path(scratch) / "run", Path(scratch) / "report"
        write(run, given.methods, given.seeds, given.clips)
        started = time.monotonic()
        command = [sys.executable, "-m", "halign_bench", "report", str(run), "--out", str(out)]
        subprocess.run(command, check=True, capture_output=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        print(f"made in {time.monotonic() - started:.1f} s, {peak:.2f} GB")
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        print(f"size {size / 2**20:.2f} MB, index.html {(out / 'index.html').stat().st_size / 2**20:.2f} MB")
        if shutil.which("chromedriver") is None:
            sys.exit("no chromedriver on PATH: the page was not opened")
        filmed = Path(scratch) / "filmed"
        quiet = io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet)
        ):
            with_made_up_samples(patch)
            assert cli(["report", str(run), "--out", str(filmed)]) == 0
        with chromium() as window:
            rounds = [opened(window, (filmed / "index.html").as_uri()) for _ in range(given.times)]
        medians = {name: round(statistics.median(one[name] for one in rounds)) for name in rounds[0]}
        print("milliseconds", json.dumps(medians))


if __name__ == "__main__":
    main()
