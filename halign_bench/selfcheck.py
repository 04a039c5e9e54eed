"""Is the training that is about to start the one that the method means? Asked before it costs hours, not after.

What a stage must satisfy at its first step, and its frozen weights to the end. All of it rides on the first training
steps; what it adds is one forward pass of two clips and sums over the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from halign_bench.batch import ClipBatch, PairBatch
from halign_bench.errors import HalignError, SelfCheckFailed

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone
    from halign_bench.method import AlignmentMethod, LossOutput, Stage

ROWS = 2  # clips that policy and reference are compared on
SAME = 1e-3  # relative: the same weights, summed in another order
CHUNK = 2**19  # numbers of a weight that are looked at together: their copies in fp64 stay small
PATIENCE = 5  # steps: LoRA's A has no gradient before B has left 0, and a batch may by chance teach nothing

Fingerprint = dict[str, tuple[float, float]]


def fingerprint(module: torch.nn.Module, without: Sequence[str] = ()) -> Fingerprint:
    """Sum and norm, in fp64, of every parameter and buffer but those of the adapters `without`.

    No hash, but nothing that trains leaves both as they were, and it is one pass wherever the weights lie. Names
    are those of the model without adapters.
    """
    import torch

    from halign_bench.adapters import adapter_parameters

    left_out = {id(p) for name in without for p in adapter_parameters(module, name).values()}
    found: Fingerprint = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if id(tensor) in left_out or tensor.is_meta:
            continue
        tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # the part that this process has
        values = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
        total = squares = 0.0
        for part in values.flatten().split(CHUNK):
            part = part.double()
            total, squares = total + part.sum(), squares + part.dot(part)
        found[name.replace(".base_layer.", ".")] = (float(total), float(squares) ** 0.5)
    return found


class SelfCheck:
    """The checks of one stage. Each raises SelfCheckFailed with one sentence, or says nothing.

    policy, reference  adapters that are on in each
    steps              how many the stage has
    """

    def __init__(
        self, method: AlignmentMethod, stage: Stage, backbone: Backbone, policy: Sequence[str],
        reference: Sequence[str], steps: int,
    ) -> None:
        from halign_bench.adapters import adapter_parameters

        self.method, self.stage, self.backbone, self.steps = method, stage, backbone, steps
        self.policy = list(policy)
        self.start = [name for name in policy if name != stage.adapter]
        # A stage on top of an earlier one of the same method starts from that, not from the reference.
        self.from_reference = set(self.start) == set(reference)
        self.own = adapter_parameters(backbone.denoiser, stage.adapter)
        self.unreached = set(self.own)
        self.before = fingerprint(backbone.denoiser, [stage.adapter])

    def _fail(self, sentence: str) -> None:
        raise SelfCheckFailed(f"self-check of {self.method.name}, stage {self.stage.adapter}: {sentence}")

    def adapter_starts_as_nothing(self, batch: ClipBatch | PairBatch) -> None:
        """Before the first update the policy predicts what the reference does (or what earlier stages left)."""
        import torch

        clips = (batch.winner if isinstance(batch, PairBatch) else batch)[:ROWS]
        x_t, _ = clips.noised(self.backbone)
        predictions = []
        for names in (self.policy, self.start):
            with torch.no_grad(), self.backbone.adapters(names):
                predictions.append(self.backbone.denoise(x_t, clips.t, clips.condition).float())
        policy, start = predictions
        if not bool(start.isfinite().all()):
            return  # a base that predicts no numbers: the first loss will say so
        difference = float((policy - start).norm() / start.norm().clamp(min=1e-12))
        if not difference <= SAME:
            other = "the reference" if self.from_reference else "the stages before it"
            self._fail(
                f"before its first update the policy differs from {other} by {difference:.2%} of the prediction; "
                "a new adapter must change nothing (its last layer is 0), and the model must be deterministic"
            )

    def loss_depends_on_the_adapter(self, output: LossOutput) -> None:
        if not output.per_sample.requires_grad:
            self._fail("its loss depends on nothing that trains: the adapter is off, or the policy is not in the loss")

    def loss_has_its_closed_form(self, output: LossOutput) -> None:
        """`AlignmentMethod.at_start` holds for every sample of the first batch."""
        if not self.from_reference:
            return
        for name, expected in self.method.at_start(self.stage).items():
            values = output.per_sample if name == "loss" else output.logs.get(name)
            if values is None:
                raise HalignError(f"method {self.method.name} states the value of {name} at the start and logs none")
            values = values.detach().float()
            if not bool(values.isfinite().all()):
                return  # divergence has a sentence of its own
            worst = values[(values - expected).abs().argmax()]
            if abs(float(worst) - expected) > SAME * max(1.0, abs(expected)):
                self._fail(
                    f"its {name} is {float(worst):.6g} before the first update, where policy and reference agree; "
                    f"its formula gives {expected:.6g}"
                )

    def pairs_share_noise_and_t(self, batch: ClipBatch | PairBatch, shown: Sequence[tuple[Any, Any]]) -> None:
        """Winner and loser reach the policy with the same t and noise, whatever the order of the rows.

        `shown` are the (x_t, t) that the policy was given. With shared noise it cancels:
        x_t of the winner - x_t of the loser = alpha(t) · (winner - loser).
        """
        import torch

        if not isinstance(batch, PairBatch) or not self.method.shares_noise:
            return
        x_t, t = torch.cat([x.float() for x, _ in shown]), torch.cat([t for _, t in shown])
        if len(x_t) < 2 * len(batch):
            return  # it does not show the network both
        tolerance = SAME if shown[0][0].dtype == torch.float32 else 0.05
        alpha = self.backbone.alpha_sigma(t)[0]
        mates = [(a, b) for a, b in (t[:, None] == t[None]).nonzero().tolist() if a != b]
        gaps = (batch.winner.x0 - batch.loser.x0).float()

        def shared(gap: torch.Tensor, a: int, b: int) -> bool:
            return bool((x_t[a] - x_t[b] - alpha[a] * gap).norm() <= tolerance * x_t[a].norm())

        apart = sum(not any(shared(gap, a, b) for a, b in mates) for gap in gaps)
        if apart:
            self._fail(
                f"winner and loser of {apart} of {len(batch)} pairs are shown to the policy with different noise or t, "
                "so that more than the preference tells them apart"
            )

    def gradients_reach_the_adapter_alone(self, step: int) -> list[str]:
        """After the backward pass of `step` (from 0). Returns parameters without any gradient in the first steps.

        At step 0 each parameter of the adapter must be part of the graph and nothing else may be. It is too early to
        ask for more: while B is 0 the gradient of A is 0. By step `PATIENCE` each should have had one.
        """
        if step == 0:
            missing = [name for name, parameter in self.own.items() if parameter.grad is None]
            if missing:
                self._fail(
                    f"no gradient reaches {len(missing)} of the {len(self.own)} parameters of its adapter, among them "
                    f"{missing[0]}: the adapter is off in the policy, or the loss does not depend on it"
                )
            strays = [
                name for name, parameter in self.backbone.denoiser.named_parameters()
                if name not in self.own and parameter.grad is not None
            ]  # fmt: skip
            if strays:
                self._fail(f"gradients reach {len(strays)} weights that are not its adapter's, among them {strays[0]}")
        last = min(PATIENCE, self.steps) - 1
        if step > last:
            return []
        self.unreached -= {name for name, p in self.own.items() if p.grad is not None and bool(p.grad.any())}
        if step < last:
            return []
        if len(self.unreached) == len(self.own):
            self._fail(
                f"every gradient of its adapter is exactly 0 in the first {step + 1} steps: the adapter is scaled to "
                "nothing, or the loss does not depend on the policy"
            )
        return [name for name in self.own if name in self.unreached] if step > 0 else []

    def reference_has_not_moved(self) -> None:
        """Since this object was made, no weight and no buffer has changed but the adapter's."""
        if moved := self.moved():
            more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
            self._fail(f"the reference has moved: {moved[0]}{more} changed, and only its adapter may")

    def moved(self) -> list[str]:
        now = fingerprint(self.backbone.denoiser, [self.stage.adapter])
        return [name for name in {**self.before, **now} if self.before.get(name) != now.get(name)]


__all__ = ["PATIENCE", "Fingerprint", "SelfCheck", "fingerprint"]
