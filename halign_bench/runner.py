"""Runs a plan: one backbone and one track, shared preferences, then cell after cell, then the leaderboard."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from halign_bench.compiling import check_compiling
from halign_bench.errors import Diverged, HalignError, Interrupted, LaunchBroken, RequestError, one_line
from halign_bench.executors.choice import executor
from halign_bench.executors.work import Task
from halign_bench.folder import RunFolder, cache_dir, clear_cell
from halign_bench.loading import annotator_if_any, load_backbone, load_track
from halign_bench.machine import disk_refusal, memory_sentence, out_of_memory
from halign_bench.plan import Cell, Plan, RunRequest, plan
from halign_bench.processes import Processes, here, join
from halign_bench.progress import Progress, Stop
from halign_bench.protocol import Protocol
from halign_bench.recording import add_heldout, make_record, now, plain
from halign_bench.remote_folder import run_folder
from halign_bench.selfcheck import fingerprint
from halign_bench.sharding import shard

if TYPE_CHECKING:
    from rich.console import Console

    from halign_bench.backbone import Backbone
    from halign_bench.evaluation import Evaluation
    from halign_bench.preferences import PreferenceSet
    from halign_bench.prefs.reading import PreferenceFile
    from halign_bench.record import Status
    from halign_bench.training import TrainingResult

TRACEBACK = "traceback.txt"  # in the cell's folder, for whoever wrote the method
TRAIN_WEIGHT = 4.0  # of one trained sample, in network evaluations: policy forward and backward, reference forward


def run(request: RunRequest, console: Console | None = None) -> int:
    """Finishes what is missing in `request.out` and prints the leaderboard last.

    Returns 0, or 1 when a cell failed or diverged (its record says why, the others are done). Raises
    `RequestError` for a request that cannot be answered, `RunLocked` when another process works on the
    same folder, `Interrupted` on Ctrl-C; the same request then goes on where it was.
    console  for progress, by default on stderr; the table, or with `json` the document, goes to stdout

    All processes of a launch call it, and share the work; the first one locks, writes and prints.
    """
    processes = join(request.device)
    try:
        with processes.settled():
            return _run(request, console, processes)
    except (Interrupted, KeyboardInterrupt) as problem:
        cls = LaunchBroken if isinstance(problem, LaunchBroken) else Interrupted
        why = str(problem) if cls is LaunchBroken else "interrupted"
        raise cls(f"{why}; what is done is kept in {request.out}, and the same command goes on from there") from None
    except OSError as problem:
        places = [cache_dir(), *([] if "://" in str(request.out) else [Path(request.out)])]
        if disk_refusal(problem, *places) is None:
            raise
        raise RequestError(
            f"{problem.filename or request.out}: {problem.strerror}; what is done is kept, and the same command "
            "goes on from there"
        ) from None


def _run(request: RunRequest, console: Console | None, processes: Processes) -> int:
    steps = plan(request)
    if processes.world > 1:
        _check_launch(request)
    if request.where.executor != "local":  # workers have another current folder
        request = request.absolute()
    labelled = labelled_for(steps, request.preferences) if request.preferences is not None else None
    if console is None:
        from rich.console import Console

        console = Console(stderr=True, quiet=not processes.main, force_terminal=None if processes.main else False)
    folder = run_folder(request.out)
    execute = executor(request.where, request.device)
    # Whatever plug-ins and libraries print must not end up in the table or the JSON document.
    quiet = contextlib.redirect_stdout(sys.stderr)
    with Stop(silent=not processes.main).listening() as stop, _taken(folder, processes), quiet:
        with processes.settled():
            if request.fresh and processes.main:
                folder.clear()
            folder.check_own()
        work = partial(Run, request, folder, labelled=labelled)
        failed = execute(work, Progress(console, stop))
        if not processes.main:
            return 0  # a launcher ends all processes with the first that returns something else
        board = folder.write_tables()
    if request.json:
        print(board.to_json(), end="")
    else:
        board.print()
    return 1 if failed else 0


@contextlib.contextmanager
def _taken(folder: RunFolder, processes: Processes) -> Iterator[None]:
    """The folder's lock, which the first process holds for all of them."""
    with contextlib.ExitStack() as stack:
        with processes.settled():
            if processes.main:
                stack.enter_context(folder.locked())
        yield


def _check_launch(request: RunRequest) -> None:
    """Raises `RequestError` for what several processes do not do together."""
    if request.where.executor != "local":
        raise RequestError(
            f"--executor {request.where.executor}: hands out cells by itself; start it without a launcher"
        )
    if request.compile and here().sharded:
        raise RequestError("--compile: not with FSDP, which divides the blocks; leave it out, or launch with DDP")
    if isinstance(request.out, str):
        raise RequestError(f"--out {request.out}: the processes of a launch share a folder; give one that they all see")


def labelled_for(steps: Plan, path: Path) -> PreferenceFile:
    """The preference file. Raises `RequestError` where it is wrong, or lacks what a method of the plan learns from."""
    from halign_bench.prefs.reading import read_preferences

    file = read_preferences(path)
    for variant in steps.variants:
        for part in variant.parts:
            file.labels.check(part.method)
    return file


class Run:
    """One run as a process has it open: what its cells share, and how one of them is done (`executors.work.Work`).

    labelled  preferences that people gave; None is to sample candidates and let the track's annotator say
    """

    def __init__(
        self, request: RunRequest, folder: RunFolder, progress: Progress, labelled: PreferenceFile | None = None
    ) -> None:
        from halign_bench.evaluation import Evaluator
        from halign_bench.preferences import PreferenceSpec
        from halign_bench.training import TrainingSpec

        folder.join()
        self.processes = here()
        self.request, self.folder, self.progress, self.labelled = request, folder, progress, labelled
        self.steps = plan(request)
        self.cells = {cell.name: cell for cell in self.steps.cells}
        profile = self.steps.profile
        with self.progress.phase(f"load {request.backbone} and {request.track}", 1):
            self.backbone = self._load()
            self.track = load_track(request.track, request.data, self.backbone)
            self.evaluator = Evaluator(self.backbone, self.track, profile)
            self._base = fingerprint(self.backbone.denoiser)
        progress.stop.gentle = True
        self.preference_spec = PreferenceSpec(
            prompts=profile.prompts, candidates=profile.candidates, nfe=profile.preference_nfe,
            shift=self.backbone.shift,
        )
        self.training_spec = TrainingSpec(
            samples=profile.samples, batch_size=profile.batch_size, lr=profile.learning_rate, rank=profile.rank
        )
        self._check_batches()
        self.protocol = self._protocol()
        self.protocol_hash = self.protocol.sha256
        folder.check_claim(self.protocol)
        self.collected: PreferenceSet | None = None
        self._no_preferences: Exception | None = None

    def _load(self) -> Backbone:
        device = self.processes.device or self.request.device
        loaded = load_backbone(self.request.backbone, device, self.request.model)
        if self.request.compile:
            check_compiling(loaded.denoiser, loaded.device)
            loaded.compiled = True
        shard(loaded.denoiser, self.processes)
        return loaded

    def _check_batches(self) -> None:
        """Every process has as much of a batch, in whole pairs. Raises `RequestError` where that cannot be."""
        stages = [stage for variant in self.steps.variants for part in variant.parts for stage in part.method.stages()]
        pair = 2 if any(stage.data == "pairs" for stage in stages) else 1
        size, world = self.training_spec.batch_size, self.processes.world
        if world > 1 and size % (world * pair):
            fit = [str(n) for n in range(1, size + 1) if size % (n * pair) == 0]
            whole = ", in whole pairs," if pair == 2 else ""
            raise RequestError(
                f"{world} processes cannot share the batches of {size} samples{whole} that profile "
                f"{self.steps.profile.name} trains with; launch {', '.join(fit)}"
            )

    def _protocol(self) -> Protocol:
        if self.labelled is not None:
            from halign_bench.prefs.labelled import protocol_of

            preferences = protocol_of(self.labelled)
        else:
            annotator = annotator_if_any(self.track)
            said = annotator.protocol if annotator is not None else "none"
            preferences = {**self.preference_spec.model_dump(mode="json"), "annotator": said}
        backbone = self.backbone
        return Protocol(
            profile=self.steps.profile.name,
            track={"name": self.track.name, **plain(self.track.fingerprint())},
            backbone={
                "name": backbone.name, "base_sha256": backbone.base_sha256, "frames": backbone.frames,
                "size": list(backbone.size), "parameterisation": backbone.parameterisation,
                "lora_targets": list(backbone.lora_targets), "precision": "bf16 where the device is native to it",
            },
            preferences=preferences,
            training=self.training_spec.model_dump(mode="json"),
            evaluation=self.evaluator.specification(),
            metrics=self.evaluator.protocols(),
        )  # fmt: skip

    def prepare(self) -> list[Task]:
        """Collects the preferences that cells share; returns the cells that have no finished record."""
        for refusal in self.track.refusals():
            self.progress.say(f"left out {refusal.source}: {refusal.reason}")
        for problem in self.evaluator.broken:
            self.progress.say(f"left out: {problem}")
        self.folder.fetch("records/*")
        lacking = self.processes.from_main(
            lambda: [cell.name for cell in self.steps.cells if not self._finished(cell)]
        )
        missing = [self.cells[name] for name in lacking]
        if len(missing) < (count := len(self.steps.cells)):
            self.progress.say(f"{count - len(missing)} of {count} cells are done already")
        self.progress.plan = self._plan_weight(missing)
        if self.labelled is not None and any(cell.variant.needs_data() for cell in missing):
            with self.processes.settled():
                self.collected = self._collect()  # before anything is written: a file that is at fault is refused whole
        with self.processes.settled():
            if self.processes.main:
                self.folder.claim(self.protocol)
        if missing:
            self._collect_once()
        labels = [f"[{n}/{len(missing)}] {cell.variant.label} seed {cell.seed}" for n, cell in enumerate(missing, 1)]
        return [Task(cell.name, label, self._weight(cell)) for cell, label in zip(missing, labels, strict=True)]

    def _finished(self, cell: Cell) -> bool:
        cell_hash = cell.sha256(self.protocol_hash)
        record = self.folder.record(cell, cell_hash)
        if record is None or record.status != "done":
            return False
        # A kill may have come between the record and the end of its samples.
        self.evaluator.remove(self.folder.work(cell, cell_hash) / "eval")
        return True

    def do(self, task: Task) -> bool:
        """Trains, evaluates and records a cell, unless that is done; whether it is then."""
        with self.processes.settled():
            self.progress.stop.check()
        cell = self.cells[task.name]
        cell_hash = cell.sha256(self.protocol_hash)
        work = self.folder.work(cell, cell_hash)
        with self.folder.held(work, self.progress) if self.processes.main else contextlib.nullcontext():
            if self.processes.from_main(lambda: self._done_before(cell, cell_hash, work)):
                return True
            done = self._cell(cell, work, task.label)
            if self.processes.main:
                self.folder.publish_cell(cell, work)
        if not done:
            self._restore_base()
        return done

    def _done_before(self, cell: Cell, cell_hash: str, work: Path) -> bool:
        self.folder.fetch(f"records/{cell.name}.*")
        before = self.folder.record(cell, cell_hash)
        if before is not None and before.status == "diverged":
            clear_cell(work, "train")  # the same training again, not its remembered end
        return before is not None and before.status == "done"

    def _restore_base(self) -> None:
        """What went wrong in a cell may have changed the base under it; the next one starts from the base as it was."""
        from halign_bench.adapters import attached

        module = self.backbone.denoiser
        if self.processes.any(fingerprint(module, attached(module)) != self._base):
            del module, self.backbone, self.evaluator.backbone  # first: there may be no room for two of them
            self.backbone = self.evaluator.backbone = self._load()
            self.progress.say("the failed cell had changed the base, which is loaded again")

    def _plan_weight(self, cells: Sequence[Cell]) -> float:
        weight = sum(self._weight(cell) for cell in cells)
        return weight + (self._preference_weight if any(cell.variant.needs_data() for cell in cells) else 0.0)

    @property
    def _preference_weight(self) -> float:
        if self.labelled is not None:
            return float(len(self.labelled.prompts))  # encoding takes about as long as a network evaluation
        spec = self.preference_spec
        return min(spec.prompts, self.track.splits().get("prompts", 0)) * spec.candidates * spec.nfe

    def _weight(self, cell: Cell) -> float:
        trained = sum(bool(part.method.stages()) for part in cell.variant.parts)
        return trained * self.training_spec.samples * TRAIN_WEIGHT + self.evaluator.weight

    # One cell

    def _cell(self, cell: Cell, work: Path, label: str) -> bool:
        """Trains, evaluates and records one cell; whether it is done. A failure is a record, not the end of the run."""
        from halign_bench.results import write_record

        started, path = now(), self.folder.record_path(cell)
        trained: list[TrainingResult] = []
        try:
            with self.processes.settled():
                trained += self._train(cell, self.preferences(cell), work / "train", label)
                if trained[-1].status == "diverged":
                    if self.processes.main:
                        write_record(path, make_record(self, cell, started, "diverged", trained[-1].error, trained))
                    self.progress.say(f"{label}: diverged: {trained[-1].error}")
                    return False
                active, segments = cell.variant.active_adapters, cell.variant.segments()
                scores = self.evaluator.evaluate(active, cell.seed, work / "eval", self.progress, label, segments)
                if self.processes.main:
                    self._record(cell, work, label, started, trained, scores)
        except Interrupted:
            raise
        except Exception as problem:
            if disk_refusal(problem, self.folder.path, cache_dir()) is not None:
                raise  # the next cell would fail on it too, and so would a record
            if not self.processes.main:
                return False
            lacks = out_of_memory(problem)
            if lacks or isinstance(problem, HalignError):
                sentence = memory_sentence(problem) if lacks else str(problem)
            else:
                sentence = one_line(f"{type(problem).__name__}: {problem}")
                work.mkdir(parents=True, exist_ok=True)
                (work / TRACEBACK).write_text(traceback.format_exc(), encoding="utf-8")
                sentence += f" (traceback in {(work / TRACEBACK).relative_to(self.folder.path).as_posix()})"
            status: Status = "diverged" if isinstance(problem, Diverged) else "failed"
            write_record(path, make_record(self, cell, started, status, sentence, trained))
            self.progress.say(f"{label}: {status}: {sentence}")
            return False
        if self.processes.main:
            self.evaluator.remove(work / "eval")
            (work / TRACEBACK).unlink(missing_ok=True)
        return True

    def _record(
        self, cell: Cell, work: Path, label: str, started: str, trained: Sequence[TrainingResult], scores: Evaluation
    ) -> None:
        """Of a cell that is done."""
        from halign_bench.results import write_record

        for sign in scores.signs:
            self._say(label, sign.text)
        add_heldout(scores, trained[-1])
        record = make_record(self, cell, started, "done", None, trained, scores)
        if trained[-1].adapters_dir is not None:
            record.files["adapters"] = f"../{(work / 'train').relative_to(self.folder.path).as_posix()}"
        write_record(self.folder.record_path(cell), record, scores.clips, scores.replicates)

    def _say(self, label: str, text: str) -> None:
        self.progress.say(f"{label}: {text}")

    def preferences(self, cell: Cell) -> PreferenceSet | None:
        """Where they could not be collected, methods that learn from data fail, and the base goes on without."""
        self._collect_once()
        if self._no_preferences is not None and cell.variant.needs_data():
            raise self._no_preferences
        return self.collected

    def _collect_once(self) -> None:
        if self.collected is None and self._no_preferences is None:
            try:
                with self.processes.settled():
                    self.collected = self._collect()
            except Interrupted:
                raise
            except Exception as problem:
                self._no_preferences = problem

    def _collect(self) -> PreferenceSet | None:
        from halign_bench.adapters import remove_adapters
        from halign_bench.preferences import collect

        if not any(variant.needs_data() for variant in self.steps.variants):
            return None
        remove_adapters(self.backbone.denoiser)
        weight, spec = self._preference_weight, self.preference_spec
        if self.labelled is not None:
            from halign_bench.prefs.labelled import load

            with self.progress.phase(f"preferences: read {self.labelled.path.name}", round(weight), weight) as phase:
                return load(self.labelled, self.backbone, self.track, cache_dir(), phase)
        # Machines of a cluster, or of a launch, see no cache but the run's own folder.
        local = self.request.where.executor == "local" and not self.processes.spread
        cache = cache_dir() if local else self.folder.path
        with self.progress.phase("preferences: sample and label candidates", round(weight / spec.nfe), weight) as phase:
            collected = collect(self.backbone, self.track, spec, cache, phase)
        self.folder.publish("preferences/*/*.safetensors")
        return collected

    def _train(self, cell: Cell, preferences: PreferenceSet | None, work: Path, label: str) -> list[TrainingResult]:
        """One part after the other, each on top of those before; stops at the first that diverges."""
        from halign_bench.training import train

        results: list[TrainingResult] = []
        parts = cell.variant.parts
        for number, part in enumerate(parts):
            earlier: Callable[[float], Sequence[str]] = replace(cell.variant, parts=parts[:number]).active_adapters
            where, spec = work / f"{number}-{part.method.name}", self.training_spec
            weight = self.training_spec.samples * TRAIN_WEIGHT if part.method.stages() else 0.0
            if not weight:
                results.append(train(part.method, self.backbone, preferences, spec, cell.seed, where, earlier=earlier))
                continue
            what = f"{label}: train" if len(parts) == 1 else f"{label}: train {part.label}"
            with self.progress.phase(what, spec.samples, weight) as phase:
                results.append(train(
                    part.method, self.backbone, preferences, spec, cell.seed, where, phase, earlier=earlier,
                    warn=partial(self._say, what),
                ))  # fmt: skip
            if results[-1].status != "done":
                break
        return results


__all__ = ["Run", "RunRequest", "run"]
