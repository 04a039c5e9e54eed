"""The gradients of one optimiser step: a batch through the policy and the reference, in parts and over processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from halign_bench.batch import ClipBatch, PairBatch
from halign_bench.errors import HalignError
from halign_bench.watch import Watch

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone, Condition
    from halign_bench.method import AlignmentMethod, Stage
    from halign_bench.processes import Processes
    from halign_bench.selfcheck import SelfCheck


@dataclass(frozen=True)
class Seen:
    """What was seen on the way.

    means   the loss, and what the method logs, over the whole batch
    watch   likewise, of what the networks said
    memory  bytes, before the backward pass, as `TrainingResult.peak_memory_bytes` counts them
    """

    means: dict[str, float]
    watch: Watch
    memory: int


def gradients(
    method: AlignmentMethod, stage: Stage, backbone: Backbone, whole: ClipBatch | PairBatch,
    parameters: Sequence[torch.nn.Parameter], below: Sequence[str], parts: int, processes: Processes,
    check: SelfCheck | None = None,
) -> Seen:  # fmt: skip
    """Leaves the gradient of the mean loss of `whole` in `parameters`, the same in every process.

    The policy is the backbone with the adapters that are on, the reference with those named `below` alone. Each process
    puts its share of the batch through, in `parts`; `check` is of the first step, and sees the first of them.

    Raises HalignError where the loss is not one number a sample, and what `check` raises.
    """
    import torch

    watch, memory = Watch(), 0
    policy, reference = _denoisers(backbone, watch, below)
    share = len(whole) // (processes.world * parts)
    sums: dict[str, float] = {"loss": 0.0}
    for parameter in parameters:
        parameter.grad = None
    for part in range(parts):
        start = (processes.rank * parts + part) * share
        batch = whole[start : start + share]
        clips = batch.winner if isinstance(batch, PairBatch) else batch
        watch.target.append(_power(clips.noised(backbone)[1]))
        output = method.loss(stage, policy, reference, batch, backbone)
        if output.per_sample.shape != (share,):
            raise HalignError(
                f"method {method.name}: its loss has shape {list(output.per_sample.shape)} for a batch of "
                f"{share}; one number a sample is expected"
            )
        if check is not None and part == 0:
            check.loss_depends_on_the_adapter(output)
            check.loss_has_its_closed_form(output)
            check.pairs_share_noise_and_t(batch, watch.shown)
        memory = max(memory, _memory(backbone.device))
        (output.per_sample.float().sum() / (share * parts)).backward()
        for name, values in {"loss": output.per_sample, **output.logs}.items():
            sums[name] = sums.get(name, 0.0) + float(values.detach().float().mean()) / parts
    if processes.world > 1:
        processes.settle()  # before anybody waits in a collective for one that has failed
        _average(parameters, processes)
        watch = watch.joined(processes)
    means = processes.mean(torch.tensor(list(sums.values()), dtype=torch.float64)).tolist()
    return Seen(dict(zip(sums, means, strict=True)), watch, memory)


def _denoisers(backbone: Backbone, watch: Watch, below: Sequence[str]) -> tuple[Any, Any]:
    import torch

    def policy(x_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        prediction = backbone.denoise(x_t, t, condition)
        watch.shown.append((x_t.detach(), t.detach()))
        watch.policy.append((t.detach(), _power(prediction)))
        return prediction

    def reference(x_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        with torch.no_grad(), backbone.adapters(below):
            prediction = backbone.denoise(x_t, t, condition)
        watch.reference.append((t.detach(), _power(prediction)))
        return prediction

    return policy, reference


def _power(samples: torch.Tensor) -> torch.Tensor:
    """`[B]`, the mean square of each of `[B, …]`."""
    return samples.detach().float().pow(2).flatten(1).mean(dim=1)


def forget_peak(device: str) -> None:
    """What other work in this process took of a GPU's memory is none of the training that begins now."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def _memory(device: str) -> int:
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    import psutil

    return int(psutil.Process().memory_info().rss)


def _average(parameters: Sequence[torch.nn.Parameter], processes: Processes) -> None:
    """Over all processes, in one message: adapters are few and small, so that no wrapper around the model is needed.

    Of a parameter that no process's loss reaches there is no gradient afterwards either.
    """
    import torch

    reached = torch.tensor([parameter.grad is not None for parameter in parameters], device=parameters[0].device)
    each = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = processes.mean(torch.cat([*(gradient.flatten() for gradient in each), reached.to(each[0])]))
    sizes = [parameter.numel() for parameter in parameters]
    *means, shares = flat.split([*sizes, len(parameters)])
    for parameter, mean, share in zip(parameters, means, shares.tolist(), strict=True):
        parameter.grad = mean.view_as(parameter) if share > 0 else None
