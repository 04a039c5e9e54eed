"""The processes of one launch (`accelerate launch`, `torchrun`): which one this is, and how they stay in step.

Tensors travel by torch.distributed. Everything else, who waits for whom and what went wrong, goes through a store of
the launch's own: such a wait has no time limit, answers Ctrl-C, and holds no GPU.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from halign_bench import errors
from halign_bench.errors import HalignError, Interrupted, LaunchBroken, RequestError, first_line

if TYPE_CHECKING:
    import torch

ALONE = 60.0  # seconds that a process in trouble waits for the others, who may be waiting for it elsewhere
NO_LIMIT = timedelta(days=30)  # of torch's collectives: the launcher ends who waits for a process that has died

T = TypeVar("T")


def launched() -> bool:
    """Whether a launcher started this process together with others."""
    numbers = [os.environ.get(name, "") for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")]
    return all(number.isdigit() for number in numbers) and int(numbers[2]) > 1


def speaks(problem: BaseException) -> bool:
    """Whether what went wrong is this process's to say: the first one's, unless it happened here alone."""
    if not launched() or os.environ["RANK"] == "0":
        return True
    stopped = isinstance(problem, (Interrupted, KeyboardInterrupt)) and not isinstance(problem, LaunchBroken)
    return _here is not None and not _here.told and not stopped


def overlooked() -> bool:
    """Whether `accelerate launch --cpu --num_processes N` started this process: alone, whatever N is."""
    cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    return cpu and "MASTER_ADDR" in os.environ and "RANK" not in os.environ


class Processes:
    """This process among those of its launch; without a launch, alone.

    rank, world  its number, and how many there are
    device       its own: "cuda:2"; None where it is alone and takes what it is told to
    sharded      whether the base's weights are divided among them (FSDP); all must then go through the network together
    """

    def __init__(self, rank: int = 0, world: int = 1, device: str | None = None, sharded: bool = False) -> None:
        self.rank, self.world, self.device, self.sharded = rank, world, device, sharded
        self.store: Any = None
        self._round = 0
        self._met: BaseException | None = None

    @property
    def main(self) -> bool:
        """Whether it is the first: the one that writes and speaks."""
        return self.rank == 0

    @property
    def spread(self) -> bool:
        """Whether they are on several machines."""
        return self.world > int(os.environ.get("LOCAL_WORLD_SIZE", self.world))

    @property
    def told(self) -> bool:
        """Whether what last went wrong here is known to all, so that the first process says it."""
        return self._met is not None

    # In step

    def settle(self, problem: BaseException | None = None, said: str = "") -> str:
        """Waits for all of them; returns what the first said. Raises where one has a problem: its own, or a like one.

        All call it at the same places, but one with a problem may call it early: the others learn of it at the next.
        Raises LaunchBroken where the others are gone, or do not come to hear of a problem.
        """
        if self.world == 1:
            if problem is not None:
                raise problem
            return said
        self._round += 1
        key, before, self._met = str(self._round), str(self._round - 1), None
        try:
            if problem is not None:
                self._look_for_the_end()
                self.store.set(f"{key}/problem", self._described(problem))
            if self.main:
                self.store.set(f"{key}/said", said)
            if self.store.add(f"{key}/here", 1) == self.world:
                wrong = self.store.get(f"{key}/problem").decode() if self.store.check([f"{key}/problem"]) else None
                self.store.set(f"{key}/all", json.dumps([wrong, self.store.get(f"{key}/said").decode()]))
                for name in ("problem", "said", "here", "all"):  # everybody has read what was before
                    self.store.delete_key(f"{before}/{name}")
            self._wait(f"{key}/all", problem)
            wrong, said = json.loads(self.store.get(f"{key}/all"))
            if wrong is not None:
                self._all_have_read(key)
        except RuntimeError as lost:  # of the store, whose server lives in the first process
            raise LaunchBroken("the launch has lost its first process") from lost
        if problem is not None:
            self._met = problem
            raise problem
        if wrong is not None:
            self._raise(json.loads(wrong))
        return said

    def _all_have_read(self, key: str) -> None:
        """Where the first process is about to end, and the store with it."""
        read, until = self.store.add(f"{key}/read", 1), time.monotonic() + 5
        while self.main and read < self.world and time.monotonic() < until:
            time.sleep(0.01)
            read = self.store.add(f"{key}/read", 0)

    def _wait(self, key: str, problem: BaseException | None) -> None:
        started = time.monotonic()
        while not self.store.check([key]):
            waited = time.monotonic() - started
            if waited > 1:
                self._look_for_the_end()
            if problem is not None and waited > ALONE:
                self.store.set("end", f"process {self.rank} failed alone ({_sentence(problem)})")
            time.sleep(min(0.05, 0.0002 + waited / 10))

    def _look_for_the_end(self) -> None:
        """Where one of them gave up waiting for the others, that is what went wrong, and not what came of it."""
        if self.store.check(["end"]):
            raise LaunchBroken(self.store.get("end").decode())

    def _described(self, problem: BaseException) -> str:
        number = problem.errno if isinstance(problem, OSError) else None
        text = str(problem) if isinstance(problem, HalignError) else f"process {self.rank}: {_sentence(problem)}"
        return json.dumps({"kind": type(problem).__name__, "text": text, "errno": number})

    def _raise(self, described: dict[str, Any]) -> NoReturn:
        """As a process raised it, where the kind of it decides what becomes of the run."""
        kind, text, number = described["kind"], described["text"], described["errno"]
        cls = getattr(errors, kind, HalignError)
        self._met = OSError(number, text) if number is not None else cls(text)
        raise self._met

    @contextmanager
    def settled(self) -> Iterator[None]:
        """What goes wrong for one of them within goes wrong for all; none leaves before the others."""
        try:
            yield
        except LaunchBroken:
            raise
        except Exception as problem:
            if problem is not self._met and self.world > 1:
                self.settle(problem)
            raise
        self.settle()

    def from_main(self, act: Callable[[], T]) -> T:
        """What `act` gives in the first process, which alone calls it, for all of them; it can be written as JSON."""
        if self.world == 1:
            return act()
        if not self.main:
            return json.loads(self.settle())  # type: ignore[no-any-return]
        try:
            value = act()
        except LaunchBroken:
            raise
        except Exception as problem:
            self.settle(problem)
            raise
        self.settle(said=json.dumps(value))
        return value

    def leave(self) -> None:
        """At the end of a run that all of them came through; the first goes last, as the store goes with it."""
        if self.world == 1:
            return
        import torch.distributed as dist

        self.settle()
        left = self.store.add("left", 1)
        while self.main and left < self.world:
            time.sleep(0.01)
            left = self.store.add("left", 0)
        dist.destroy_process_group()

    # Shares

    def rounds(self, items: Sequence[T]) -> list[Sequence[T]]:
        """In a round each process has one of the items, as far as they go; `share` says which."""
        return [items[start : start + self.world] for start in range(0, len(items), self.world)]

    def share(self, round_: Sequence[T]) -> tuple[T | None, bool]:
        """(what this process does, whether it is its own to keep): the last round may be too short.

        Then it does nothing, or where weights are divided once more what another one does, as all must go through the
        network together.
        """
        if self.rank < len(round_):
            return round_[self.rank], True
        return (round_[-1] if self.sharded else None), False

    # Tensors

    def mean(self, tensor: torch.Tensor) -> torch.Tensor:
        """Over all of them, alike in all; on the tensor's device."""
        if self.world == 1:
            return tensor
        import torch.distributed as dist

        there = tensor.detach().to(self.device, copy=True)
        dist.all_reduce(there)
        return (there / self.world).to(tensor.device)

    def any(self, flag: bool) -> bool:
        """Whether it is true in one of them."""
        import torch

        return bool(self.mean(torch.tensor([float(flag)])) > 0)

    def joined(self, tensor: torch.Tensor) -> torch.Tensor:
        """The rows of all of them, which have as many each, in the order of their numbers."""
        if self.world == 1:
            return tensor
        import torch
        import torch.distributed as dist

        there = tensor.detach().to(self.device).contiguous()
        parts = [torch.empty_like(there) for _ in range(self.world)]
        dist.all_gather(parts, there)
        return torch.cat(parts).to(tensor.device)


_here: Processes | None = None


def here() -> Processes:
    """This process among those that it has joined, else alone."""
    return _here or Processes()


def join(device: str = "auto") -> Processes:
    """Meets the other processes of the launch; they call this too. Without a launch there is nothing to do.

    device  as `--device`. Raises RequestError where a launch cannot have it.
    """
    global _here
    if _here is None:
        _here = _joined(device) if launched() else Processes()
    return _here


def _joined(device: str) -> Processes:
    import torch
    import torch.distributed as dist
    from accelerate import PartialState

    _check(device)
    cpu = device == "cpu" or os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" or not torch.cuda.is_available()
    try:
        state = PartialState(cpu=cpu, timeout=NO_LIMIT)
    except (RuntimeError, ValueError) as problem:
        raise RequestError(f"the processes of this launch do not find each other ({first_line(problem)})") from None
    rank, world = state.process_index, state.num_processes
    joined = Processes(rank, world, str(state.device), _wants_shards(cpu))
    host = os.environ["MASTER_ADDR"]
    port: list[Any] = [None]
    if rank == 0:
        joined.store = dist.TCPStore(host, 0, world, True, wait_for_workers=False)
        port = [joined.store.port]
        signal.signal(signal.SIGTERM, _ended)
    dist.broadcast_object_list(port, src=0)
    if rank > 0:
        joined.store = dist.TCPStore(host, port[0], world, False, wait_for_workers=False)
    return joined


def _check(device: str) -> None:
    if ":" in device:
        raise RequestError(f"--device {device}: the launcher gives each process a GPU; leave it at auto, cpu or cuda")
    if device not in ("auto", "cpu", "cuda"):
        raise RequestError(f"--device {device}: several processes train together on cpu or cuda")
    if device == "cuda" and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true":
        raise RequestError("--device cuda: the launcher was told to use the CPU; leave out one of the two")


def _wants_shards(cpu: bool) -> bool:
    """As `accelerate launch` hands on what it was asked for. Raises RequestError for what is not done here."""
    import torch

    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() != "true":
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise RequestError("--use_fsdp: weights are divided as FSDP 2 does it; add --fsdp_version 2")
    if os.environ.get("FSDP_OFFLOAD_PARAMS", "").lower() == "true":
        raise RequestError("--fsdp_offload_params: not done here; leave it out, or take more GPUs")
    if cpu and not hasattr(torch.cpu.Stream, "record_event"):
        raise RequestError(f"--use_fsdp: torch {torch.__version__} divides weights on GPUs alone; take a newer one")
    return True


def _ended(number: int, frame: FrameType | None) -> None:
    raise LaunchBroken("ended by the launcher, as it does when another process has died")


def _sentence(problem: BaseException) -> str:
    return str(problem) if isinstance(problem, HalignError) else f"{type(problem).__name__}: {problem}"


__all__ = ["Processes", "here", "join", "launched", "overlooked", "speaks"]
