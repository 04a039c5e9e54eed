"""The command line. Nothing heavy is imported before a request is known to make sense."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from halign_bench import __version__, processes, registry
from halign_bench.analysis.commands import app as analyze
from halign_bench.assets.commands import app as assets
from halign_bench.checking.commands import EPILOG as CHECK_EXAMPLES
from halign_bench.checking.commands import check
from halign_bench.errors import HalignError, Interrupted, PluginError, RequestError, one_line
from halign_bench.executors.choice import Where
from halign_bench.executors.options import ExecutorName, RayAddress, TaskCpus, TaskGpus
from halign_bench.figures.commands import EPILOG as FIGURES_EXAMPLES
from halign_bench.figures.commands import figures
from halign_bench.fitness.commands import EPILOG as FITNESS_EXAMPLES
from halign_bench.fitness.commands import fitness
from halign_bench.grammar import parse_methods, parse_nfe, parse_seeds
from halign_bench.limited import survived
from halign_bench.machine import memory_sentence, out_of_memory
from halign_bench.model_choice import AudioEncoderOption, FramesOption, ModelChoice, ModelOption, SizeOption
from halign_bench.prefs.commands import app as prefs
from halign_bench.printing import print_json, print_table
from halign_bench.report.commands import EPILOG as REPORT_EXAMPLES
from halign_bench.report.commands import report
from halign_bench.scoring.commands import EPILOG as SCORE_EXAMPLES
from halign_bench.scoring.commands import score
from halign_bench.validation.commands import EPILOG as VALIDATE_EXAMPLES
from halign_bench.validation.commands import validate

FORMATS = ("table", "md", "csv", "latex", "html", "json")
STAGES = ("codec", "audio", "corpus", "base", "all")
EMBEDDED = ("puppet-dit", "puppet-unet")
# typer exports only this child of it, and is with or without click as its version has it.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    rich_markup_mode=None,  # plain help: importing rich for it would triple the time to an answer
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="One protocol, one evaluator and honest statistics for alignment methods of human-animation models.",
    epilog="""Examples:

\b
  halign-bench run --methods diffusion-dpo,sft            train, evaluate and rank on the embedded track
  halign-bench run --methods sft --track clips --data DIR the same on your own videos
  halign-bench score generated/ --reference real/         the published metrics on your own videos
  halign-bench fitness                                    which metrics follow damage of known size
  halign-bench leaderboard runs/latest --format md        the table again, as Markdown
  halign-bench report runs/latest --out report            pages to look at, with a gallery
  halign-bench list                                       what can be run

\b
Exit codes: 0 done; 1 the answer is no; 2 the request is wrong or cannot be answered; 130 interrupted, resumable.""",
)


app.add_typer(analyze, name="analyze")
app.add_typer(assets, name="assets")
app.add_typer(prefs, name="prefs")
app.command(name="score", epilog=SCORE_EXAMPLES)(score)
app.command(name="fitness", epilog=FITNESS_EXAMPLES)(fitness)
app.command(name="validate", epilog=VALIDATE_EXAMPLES)(validate)
app.command(name="figures", epilog=FIGURES_EXAMPLES)(figures)
app.command(name="report", epilog=REPORT_EXAMPLES)(report)
app.command(name="check", epilog=CHECK_EXAMPLES)(check)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"halign-bench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(
    epilog="""Examples:

\b
  halign-bench run --methods diffusion-dpo,sft
  halign-bench run --methods "diffusion-dpo[beta=500],sft" --seeds 3 --out runs/beta
  halign-bench run --methods sft --set sft.KEY=VALUE --profile smoke
  halign-bench run --methods sft --track clips --data videos/ --profile smoke
  halign-bench run --methods diffusion-dpo --preferences labels.jsonl
  halign-bench run --methods sft --track clips --data videos/ --backbone wan --frames 49 --size 832x480 \\
      --model Wan-AI/Wan2.1-T2V-1.3B-Diffusers
  halign-bench run --methods tpo,ipa --out /shared/run --executor ray --ray-address HOST:6379
  accelerate launch --multi_gpu --num_processes 8 -m halign_bench run --methods tpo"""
)
def run(
    methods: Annotated[
        list[str],
        typer.Option(
            help='Methods to compare: "a,b"; "a[key=value]" sets numbers of a; "a+b" trains b on top of a. '
            "base and sft are always in the table.",
            metavar="A,B…",
        ),
    ],
    track: Annotated[str, typer.Option(help="Where clips come from.", metavar="NAME")] = "puppet",
    backbone: Annotated[str, typer.Option(help="The model that is aligned.", metavar="NAME")] = "puppet-dit",
    model: ModelOption = None,
    audio_encoder: AudioEncoderOption = None,
    frames: FramesOption = None,
    size: SizeOption = None,
    data: Annotated[Path | None, typer.Option(help="Folder of videos, for --track clips.", metavar="DIR")] = None,
    profile: Annotated[
        str, typer.Option(help="How much of everything: smoke, default or paper.", metavar="NAME")
    ] = "default",
    seeds: Annotated[str, typer.Option(help="How many training seeds (3), or which (0,1,2).", metavar="N|A,B…")] = "1",
    nfe: Annotated[
        str | None,
        typer.Option(help="Network evaluations to evaluate at, instead of the profile's (100,30,10).", metavar="A,B…"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A number of a method, wherever it stands in --methods.", metavar="METHOD.KEY=VALUE"
        ),
    ] = None,
    preferences: Annotated[
        Path | None,
        typer.Option(help="Labels of people to train on (.jsonl, .csv, .parquet), not the track's.", metavar="FILE"),
    ] = None,
    out: Annotated[
        str,
        typer.Option(help="Folder of the run; the same one again finishes what is missing.", metavar="DIR|URL"),
    ] = "runs/latest",
    fresh: Annotated[bool, typer.Option("--fresh", help="Do everything again, also what is done.")] = False,
    executor: ExecutorName = "local",
    ray_address: RayAddress = None,
    task_cpus: TaskCpus = None,
    task_gpus: TaskGpus = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", metavar="NAME")] = "auto",
    compile_: Annotated[
        bool, typer.Option("--compile", help="Train LoRAs in compiled blocks: minutes before the first step.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Train and evaluate methods under one protocol, and rank them where the data support it."""
    launch = processes.join(device)
    if processes.overlooked():
        more = "--multi_gpu starts more, without GPUs too (docs/scale.md)"
        print(f"halign-bench: accelerate launch --cpu starts one process; {more}", file=sys.stderr)
    with launch.settled():
        seed_list = parse_seeds(seeds)
        nfe_list = parse_nfe(nfe) if nfe is not None else None
        # Names first: they answer without importing torch.
        for name in dict.fromkeys(name for text in methods for parts in parse_methods(text) for name, _ in parts):
            registry.check("method", name)
        registry.check("track", track)
        registry.check("backbone", backbone)
        choice = ModelChoice.of(model, audio_encoder, frames, size)
        if data is not None and not data.is_dir():
            raise RequestError(f"--data {data}: {'not a folder' if data.exists() else 'no such folder'}")
        if preferences is not None and not preferences.is_file():
            what = "not a file" if preferences.exists() else "no such file"
            raise RequestError(f"--preferences {preferences}: {what}")

    from halign_bench.plan import RunRequest
    from halign_bench.runner import run as run_benchmark

    request = RunRequest(
        methods=methods, track=track, backbone=backbone, model=choice, data=data, profile=profile, seeds=seed_list,
        nfe=nfe_list, overrides=set_ or [], out=out if "://" in out else Path(out), fresh=fresh,
        preferences=preferences, device=device, json=as_json, compile=compile_,
        where=Where(executor, ray_address, task_cpus, task_gpus),
    )  # fmt: skip
    code = run_benchmark(request)
    launch.leave()
    return code


@app.command(
    epilog="""Examples:

\b
  halign-bench leaderboard runs/latest
  halign-bench leaderboard runs/a runs/b --format md --out table.md
  halign-bench leaderboard runs/a --metrics fid,hkc,sync_c --methods base,ipa --format latex --out table.tex"""
)
def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or records.", metavar="RUN…")],
    format_: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}.", metavar="NAME")] = "table",
    out: Annotated[Path | None, typer.Option(help="Write it there instead of printing it.", metavar="FILE")] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Scores to show, in this order; the Pareto front is theirs.", metavar="A,B…")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Methods to show, in this order; ranks stay those of all.", metavar="A,B…")
    ] = None,
) -> int:
    """Make the table of one or several runs again; their protocols must be the same."""
    if format_ not in FORMATS:
        raise RequestError(registry.unknown("--format", format_, FORMATS))
    from rich.console import Console

    from halign_bench.atomic import atomic_write
    from halign_bench.leaderboard import build
    from halign_bench.results import collector_paused, read_records
    from halign_bench.tables.selection import select

    with collector_paused():
        board = select(build(*read_records(runs)), metrics, methods)
    for refusal in board.refused:  # not every form says it where it is seen
        print(f"halign-bench: {refusal.source}: left out, {refusal.reason}", file=sys.stderr)
    if format_ == "table":
        buffer = io.StringIO()
        board.print(None if out is None else Console(file=buffer, width=100))
        text = buffer.getvalue()
    else:
        written = {
            "md": board.to_markdown, "csv": board.to_csv, "latex": board.to_latex, "html": board.to_html,
            "json": board.to_json,
        }  # fmt: skip
        text = written[format_]()
    if out is not None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(out, text)
        except OSError as problem:
            raise RequestError(f"--out {out}: cannot be written ({problem.strerror or problem})") from None
    else:
        print(text, end="")
    return 0


@app.command(
    epilog="""Examples:

\b
  halign-bench pretrain --out base/
  halign-bench pretrain --out trial/ --steps 500 --seed 1
  halign-bench pretrain --out base/ --backbone puppet-unet"""
)
def pretrain(
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint; the same one again goes on.", metavar="DIR")],
    stage: Annotated[str, typer.Option(help=f"How far: {', '.join(STAGES)}.", metavar="NAME")] = "all",
    steps: Annotated[
        int | None, typer.Option(help="Training steps of the base, instead of the recipe's.", min=1, metavar="N")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.", min=0, metavar="N")] = 0,
    backbone: Annotated[str, typer.Option(help=f"{' or '.join(EMBEDDED)}.", metavar="NAME")] = EMBEDDED[0],
) -> int:
    """Train an embedded base again from nothing; takes hours, can be interrupted."""
    if stage not in STAGES:
        raise RequestError(registry.unknown("--stage", stage, STAGES))
    if backbone not in EMBEDDED:
        raise RequestError(registry.unknown("--backbone", backbone, EMBEDDED))
    from rich.console import Console

    from halign_bench import pretrain as training
    from halign_bench.locking import locked
    from halign_bench.progress import Progress, Stop

    recipe = replace(training.RECIPES[backbone], seed=seed)
    if steps is not None:
        recipe = replace(recipe, steps=steps)
    busy = "another pretraining is at work there; wait for it or choose another folder"
    with locked(out / ".lock", f"--out {out}", busy), contextlib.ExitStack() as phases, Stop().listening() as stop:
        progress = Progress(Console(stderr=True), stop)
        current: dict[str, Any] = {}

        def report(label: str, done: int, total: int, numbers: dict[str, float]) -> None:
            if label not in current:
                phases.close()
                current.clear()
                current[label] = phases.enter_context(progress.phase(label, total))
            current[label](done, total)

        try:
            made = training.main(out, recipe, stage=stage, report=report)
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(f"interrupted; the same command goes on from what is kept in {out}") from None
    print(made)
    return 0


@app.command(
    name="list",
    epilog="""Examples:

\b
  halign-bench list
  halign-bench list methods --json""",
)
def list_plugins(
    kind: Annotated[
        str | None, typer.Argument(help="Only these.", metavar="[methods|metrics|backbones|tracks]")
    ] = None,
    as_json: Json = False,
) -> int:
    """List methods, metrics, backbones and tracks, ours and installed ones, and whether each can be used."""
    kinds = {f"{its_kind}s": its_kind for its_kind in registry.KINDS}
    if kind is not None and kind not in kinds:
        raise RequestError(registry.unknown("kind of plug-in", kind, kinds))
    with _quiet_stdout():
        plugins = registry.describe(kinds.values() if kind is None else [kinds[kind]])
    if as_json:
        print_json(
            {
                "schema": "halign-bench/list/1",
                "plugins": [
                    {
                        "kind": p.kind, "name": p.name, "summary": p.summary, "origin": p.origin, "target": p.target,
                        "status": p.status, "error": p.error,
                    }
                    for p in plugins
                ],
            }
        )  # fmt: skip
    else:
        rows = [(p.kind, p.name, p.error or p.summary, p.origin) for p in plugins]
        print_table(("kind", "name", "summary", "from"), rows, bad=[p.error is not None for p in plugins])
    return 0


@app.command(
    epilog="""Examples:

\b
  halign-bench conformance diffusion-dpo
  halign-bench conformance my-metric --json
  halign-bench conformance wan --model DIR --frames 9 --size 128x128"""
)
def conformance(
    name: Annotated[str, typer.Argument(help="A method, metric, backbone or track, ours or an installed one.")],
    model: ModelOption = None,
    audio_encoder: AudioEncoderOption = None,
    frames: FramesOption = None,
    size: SizeOption = None,
    as_json: Json = False,
) -> int:
    """Check that a plug-in keeps the contract of its kind."""
    kinds = [kind for kind in registry.KINDS if name in registry.names(kind)]
    if not kinds:
        known = sorted({known for kind in registry.KINDS for known in registry.names(kind)})
        raise PluginError(registry.unknown("plug-in", name, known))
    choice = ModelChoice.of(model, audio_encoder, frames, size)
    if choice != ModelChoice() and kinds != ["backbone"]:
        raise RequestError(f"{name} is no backbone; leave --model, --audio-encoder, --frames and --size out")
    from halign_bench.conformance import check_plugin

    with _quiet_stdout():
        given = None if choice == ModelChoice() else choice
        checks = [(kind, check) for kind in kinds for check in check_plugin(kind, name, given)]
    failed = [check for _, check in checks if check.status == "failed"]
    if as_json:
        print_json(
            {
                "schema": "halign-bench/conformance/1",
                "name": name,
                "passed": not failed,
                "checks": [
                    {"kind": kind, "check": c.name, "status": c.status, "detail": c.detail} for kind, c in checks
                ],
            }
        )
    else:
        rows = [(kind, c.status, c.name, c.detail) for kind, c in checks]
        print_table(("kind", "status", "check", "detail"), rows, bad=[c.status == "failed" for _, c in checks])
        passed = sum(check.status == "passed" for _, check in checks)
        print(f"{name}: {passed} of {len(checks)} checks passed, {len(failed)} failed")
    return 1 if failed else 0


@app.command(
    epilog="""Examples:

\b
  halign-bench doctor
  halign-bench doctor --json"""
)
def doctor(as_json: Json = False) -> int:
    """Check this installation: packages, weights, plug-ins, memory, disk and devices."""
    from halign_bench.doctor import examine

    with _quiet_stdout():
        findings = examine()
    failed = [finding for finding in findings if finding.status == "failed"]
    if as_json:
        print_json(
            {
                "schema": "halign-bench/doctor/1",
                "passed": not failed,
                "findings": [{"subject": f.subject, "status": f.status, "detail": f.detail} for f in findings],
            }
        )
    else:
        rows = [(f.status, f.subject, f.detail) for f in findings]
        print_table(("status", "subject", "detail"), rows, bad=[f.status == "failed" for f in findings])
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; a user's mistake is one sentence on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return survived(lambda: _answered(given))


def _answered(arguments: list[str]) -> int:
    try:
        code = app(args=arguments or ["--help"], prog_name="halign-bench", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except HalignError as error:
        return _complain(error, str(error), error.exit_code)
    except UsageError as error:
        return _complain(error, one_line(_usage_sentence(error)), 2)
    except (KeyboardInterrupt, typer.Abort) as error:
        return _complain(error, "interrupted", 130)
    except BrokenPipeError:  # the reader of our output, `head` for example, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as problem:
        if (sentence := _machine_sentence(problem)) is None:
            raise
    # Outside of the handler: what the failed work held is free by now.
    return _complain(RequestError(sentence), one_line(sentence), 2)


def _machine_sentence(problem: Exception) -> str | None:
    """What to say when it is the machine that refuses; None when it is a bug."""
    if out_of_memory(problem):
        return f"{memory_sentence(problem)}; what is done is kept, and the same command goes on once there is more"
    if isinstance(problem, OSError) and problem.errno is not None:
        if problem.filename is None:  # our own output, perhaps, which nobody must try to flush again
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return f"{problem.filename or 'input or output'}: {problem.strerror}"
    return None


def _complain(error: BaseException, sentence: str, code: int) -> int:
    if not processes.speaks(error):  # and ends as if well: a launcher ends the others with the first that does not
        return 0
    print(f"halign-bench: {sentence}", file=sys.stderr)
    return code


def _usage_sentence(error: Any) -> str:
    """typer's message, with the command it was for and, for a name typed wrong, the nearest one."""
    context = error.ctx
    command = context.command_path.removeprefix("halign-bench").strip() if context else ""
    message = error.format_message().rstrip(".")
    unknown_name = re.match(r"No such (option|command)\W+?((?:--?)?[^'\s]+)", message)
    if unknown_name and context is not None:
        what, given = unknown_name.groups()
        known = (
            getattr(context.command, "commands", {})
            if what == "command"
            else [option for parameter in context.command.params for option in parameter.opts if option[:2] == "--"]
        )
        near = registry.nearest(given, known)
        message = f"No such {what} '{given}'" + (f": did you mean '{near}'?" if near else "")
    return f"{command}: {message} (see halign-bench {command} --help)" if command else f"{message} (see --help)"


def _quiet_stdout() -> contextlib.AbstractContextManager[Any]:
    """What a plug-in prints goes to stderr, so that stdout stays a table or one JSON document."""
    return contextlib.redirect_stdout(sys.stderr)
