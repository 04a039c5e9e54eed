"""Adapters: LoRA through peft, or an insert, a module of a method's own (`halign_bench.inserts`).

The policy is the base with adapters on, the reference the same base with them off.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from halign_bench.atomic import atomic_path
from halign_bench.chunks import checksum
from halign_bench.documents import parsed
from halign_bench.errors import RequestError
from halign_bench.inserts import HOLDER, active_inserts, attach_insert, inserts, remove_inserts

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone, Condition
    from halign_bench.method import Stage

WEIGHTS = "pytorch_lora_weights.safetensors"  # the file name diffusers looks for
INSERT_WEIGHTS = "insert.safetensors"
INSERT_CONFIG = "insert.json"
CHECKSUM = "sha256"  # of the tensors, among the metadata
ACTIVE = "_halign_active"  # the denoiser's attribute


def _tuner_layers(module: torch.nn.Module) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]


def attached(module: torch.nn.Module) -> tuple[str, ...]:
    """Names of the adapters attached to `module`: first the LoRAs, then the inserts, each in the order they came in."""
    return (*_loras(module), *inserts(module))


def _loras(module: torch.nn.Module) -> tuple[str, ...]:
    return tuple(getattr(module, "peft_config", None) or ())


def active(module: torch.nn.Module) -> tuple[str, ...]:
    """Names of the adapters that the innermost `active_adapters` has on; none outside of any."""
    return tuple(getattr(module, ACTIVE, ()))


@contextmanager
def active_adapters(module: torch.nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Within the context exactly `names` are active; none of them leaves the base, bit for bit.

    Nests, restores what was active before, and never changes which parameters train. Without any
    adapter attached and none asked for it does nothing. Raises ValueError for a name not attached.

    With gradient checkpointing blocks are run again during `backward()`: `halign_bench.recompute` does so as they were.
    """
    unknown = [name for name in names if name not in attached(module)]
    if unknown:
        raise ValueError(f"no adapter {', '.join(unknown)} on this model; attached: {', '.join(attached(module))}")
    layers, loras = _tuner_layers(module), [name for name in names if name in _loras(module)]
    # Layers may differ: an adapter need not target every layer that another one does.
    before = [(list(layer.active_adapters), bool(layer.disable_adapters)) for layer in layers]
    outside = active(module)

    def switch(layer: Any, on: list[str], disabled: bool) -> None:
        # What peft's set_adapter and enable_adapters set, which also say which parameters train: that is the trainer's
        # alone, and to go through all parameters twice a step would cost more than the switches.
        layer._active_adapter, layer._disable_adapters = on, disabled

    try:
        for layer in layers:
            switch(layer, loras, not loras)
        setattr(module, ACTIVE, tuple(names))
        with active_inserts(module, [name for name in names if name in inserts(module)]):
            yield
    finally:
        setattr(module, ACTIVE, outside)
        for layer, (names_before, disabled) in zip(layers, before, strict=True):
            switch(layer, names_before, disabled)


@contextmanager
def fused_adapters(module: torch.nn.Module, names: Sequence[str]) -> Iterator[None]:
    """As `active_adapters`, to sample with: the base's own weights carry the LoRAs, whose layers cost nothing then.

    Afterwards the base is as it was, bit for bit. Meanwhile there are two of each weight that has a LoRA. Outputs
    are those of `active_adapters` but for rounding. Weights that cannot carry a LoRA do not: quantised ones, those of
    half precision, whose rounding would swallow it, and those that are divided among processes.
    """
    import torch
    from peft.tuners.lora import Linear

    loras = [name for name in names if name in _loras(module)]
    layers = [layer for layer in _tuner_layers(module) if any(name in layer.lora_A for name in loras)]
    fit = all(
        isinstance(layer, Linear) and layer.weight.dtype == torch.float32 and not hasattr(layer.weight, "to_local")
        for layer in layers
    )
    if not (layers and fit):
        with active_adapters(module, names):
            yield
        return
    kept = [(layer.weight, layer.weight.data) for layer in layers]
    try:
        with torch.no_grad():
            for layer, (weight, own) in zip(layers, kept, strict=True):
                weight.data = own + sum(layer.get_delta_weight(name) for name in loras if name in layer.lora_A)
        with active_adapters(module, [name for name in names if name not in loras]):
            yield
    finally:
        for weight, own in kept:
            weight.data = own


def attach(
    backbone: Backbone, stage: Stage, condition: Condition, rank: int, alpha: float, seed: int
) -> list[torch.nn.Parameter]:
    """Attaches what `stage` trains, not active, and returns its parameters, the only ones left trainable.

    condition  of any clips: an insert learns shapes from it
    Raises RequestError where the backbone has no place for it.
    """
    module = backbone.denoiser
    if stage.insert is None:
        return attach_lora(module, stage.adapter, backbone.lora_targets, rank, alpha, seed)
    if not (blocks := backbone.blocks()):
        raise RequestError(f"{stage.adapter} goes into the blocks of a network, and {backbone.name} states none")
    return attach_insert(module, stage.adapter, stage.insert, blocks, condition, seed)


def attach_lora(
    module: torch.nn.Module, name: str, targets: Sequence[str], rank: int, alpha: float, seed: int
) -> list[torch.nn.Parameter]:
    """Adds a LoRA that changes nothing yet (B = 0) and returns its parameters, the only ones left trainable.

    Weights are fp32 whatever the base is in, and A is drawn from `seed` alone. The adapter is attached
    but not active: use `active_adapters`. Raises RequestError when no layer is named like `targets`.
    """
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    from halign_bench.lora import adopt

    if name in attached(module):
        raise ValueError(f"an adapter {name} is attached already")
    config = LoraConfig(r=rank, lora_alpha=cast(int, alpha), target_modules=list(targets), init_lora_weights=True)
    if inserts(module):
        config.exclude_modules = rf"{HOLDER}\..*"  # their layers may be named alike
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several adapters are meant
        module._hf_peft_config_loaded = True  # type: ignore[assignment]  # diffusers' mark: its own methods look at it
        try:
            inject_adapter_in_model(config, module, name)
        except ValueError as problem:
            raise RequestError(f"the backbone has no layers named like {', '.join(targets)}: {problem}") from problem
    adopt(module)
    module.peft_config[name].exclude_modules = None  # type: ignore[union-attr, index]  # no property of the LoRA
    module.requires_grad_(False)
    parameters = adapter_parameters(module, name)
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in parameters.items():
        parameter.data = parameter.data.float()
        if "lora_A" in key or "lora_embedding_A" in key:
            # peft's own distribution, but drawn on the CPU so that every device starts alike.
            bound = parameter[0].numel() ** -0.5
            parameter.data.copy_(torch.rand(parameter.shape, generator=generator) * 2 * bound - bound)
        parameter.requires_grad_(True)
    for layer in _tuner_layers(module):
        layer.enable_adapters(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return list(parameters.values())


def adapter_parameters(module: torch.nn.Module, name: str) -> dict[str, torch.nn.Parameter]:
    """The parameters of one adapter by their full name, in the model's order."""
    if name in inserts(module):
        return {key: p for key, p in module.named_parameters() if key.startswith(f"{HOLDER}.{name}.")}
    own = re.compile(rf"\.lora_\w+\.{re.escape(name)}(\.|$)")
    return {key: p for key, p in module.named_parameters() if own.search(key)}


def remove_adapters(module: torch.nn.Module, names: Sequence[str] | None = None) -> None:
    """Takes adapters off again (all of them by default); what is left is the model as it was."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    wanted = attached(module) if names is None else tuple(names)
    remove_inserts(module, [name for name in wanted if name in inserts(module)])
    gone = [name for name in wanted if name in _loras(module)]
    for layer in _tuner_layers(module):
        trains = [(p, p.requires_grad) for p in layer.parameters()]
        layer.set_adapter([name for name in layer.active_adapters if name not in gone])
        for name in gone:
            layer.delete_adapter(name)
        for parameter, flag in trains:
            parameter.requires_grad_(flag)
    for name in gone:
        module.peft_config.pop(name)  # type: ignore[union-attr, operator]  # an attribute peft adds
    if gone and not _loras(module):
        for parent in list(module.modules()):
            for child_name, child in list(parent.named_children()):
                if isinstance(child, BaseTunerLayer):
                    setattr(parent, child_name, child.get_base_layer())
        del module.peft_config
        module._hf_peft_config_loaded = False  # type: ignore[assignment]  # diffusers' mark


def save_adapters(
    module: torch.nn.Module, names: Sequence[str], folder: Path, component: str = "transformer",
    about: Callable[[str], Mapping[str, Any]] | None = None,
) -> None:  # fmt: skip
    """Writes `folder/NAME/pytorch_lora_weights.safetensors` for each LoRA, as diffusers' own scripts do.

    `pipeline.load_lora_weights("folder/NAME")` reads it, and so does the network's own
    `load_lora_adapter("folder/NAME", prefix=component, use_safetensors=True)`; the keys are peft's behind the
    component's name, the LoRA's rank and alpha are in the file's metadata. An insert is `insert.safetensors`, its
    module's own names and weights, and `insert.json`, what `about` says of it. The folder appears at once or not at
    all.
    """
    import json

    from halign_bench.tensor_files import save_tensors

    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in names:
        (partial / name).mkdir(parents=True)
        if name in inserts(module):
            weights = {key: p.detach().cpu() for key, p in _insert_parameters(module, name).items()}
            with atomic_path(partial / name / INSERT_WEIGHTS) as file:
                save_tensors(weights, file, {"format": "pt", CHECKSUM: checksum(weights)})
            if about is not None:
                (partial / name / INSERT_CONFIG).write_text(json.dumps(about(name), indent=2) + "\n", encoding="utf-8")
            continue
        config = module.peft_config[name].to_dict()  # type: ignore[union-attr, index, operator]  # peft adds it
        config = {
            f"{component}.{key}": sorted(value) if isinstance(value, set) else value for key, value in config.items()
        }
        state = {f"{component}.{key}": p.detach().cpu() for key, p in _without_name(module, name).items()}
        about_it = json.dumps(config, default=str, sort_keys=True)
        metadata = {"format": "pt", "lora_adapter_metadata": about_it, CHECKSUM: checksum(state, about_it)}
        with atomic_path(partial / name / WEIGHTS) as file:
            save_tensors(state, file, metadata)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load_adapters(
    module: torch.nn.Module, folder: Path, attach_named: Callable[[str], object] | None = None
) -> list[str]:
    """Attaches, frozen and not active, every adapter that `save_adapters` wrote to `folder`; returns their names.

    attach_named  attaches the insert of a name, of whose module the file holds the weights alone
    Raises RequestError naming the file when one is missing, damaged or made for another model.
    """
    files = sorted((*folder.glob(f"*/{WEIGHTS}"), *folder.glob(f"*/{INSERT_WEIGHTS}")))
    if not files:
        raise RequestError(
            f"{folder}: no adapters in this folder ({WEIGHTS} or {INSERT_WEIGHTS} expected in a sub-folder for each)"
        )
    for file in files:
        if file.name == WEIGHTS:
            _load_lora(module, file)
        elif attach_named is None:
            raise RequestError(f"{file}: the weights of a method's own module, which only that method can attach")
        else:
            _load_insert(module, file, attach_named)
    return [file.parent.name for file in files]


def _check(metadata: Mapping[str, str], weights: dict[str, torch.Tensor], about: str = "") -> None:
    """Raises ValueError for weights that are not those that were written. Files of others have no checksum."""
    if CHECKSUM in metadata and metadata[CHECKSUM] != checksum(weights, about):
        raise ValueError("its content is not what was written")


def _load_lora(module: torch.nn.Module, file: Path) -> None:
    import torch
    from safetensors import SafetensorError, safe_open

    name = file.parent.name
    try:
        with safe_open(str(file), framework="pt") as stored:
            about = stored.metadata()["lora_adapter_metadata"]
            weights = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
            _check(stored.metadata(), weights, about)
            config = parsed(about)
            component = next(key.removesuffix("r") for key in config if key == "r" or key.endswith(".r"))
            config = {key.removeprefix(component): value for key, value in config.items()}
            state = {key.removeprefix(component): value for key, value in weights.items()}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, StopIteration) as problem:
        raise RequestError(f"{file}: not a readable LoRA file ({problem}); train the method again") from problem
    attach_lora(module, name, config["target_modules"], config["r"], config["lora_alpha"], seed=0)
    own = _without_name(module, name)
    if _shapes(own) != _shapes(state):
        remove_adapters(module, [name])
        raise RequestError(f"{file}: these LoRA weights belong to another backbone")
    with torch.no_grad():
        for key, parameter in own.items():
            parameter.copy_(state[key])
            parameter.requires_grad_(False)


def _load_insert(module: torch.nn.Module, file: Path, attach_named: Callable[[str], object]) -> None:
    import torch
    from safetensors import SafetensorError, safe_open

    name = file.parent.name
    try:
        with safe_open(str(file), framework="pt") as stored:
            state = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
            _check(stored.metadata() or {}, state)
    except (SafetensorError, OSError, ValueError) as problem:
        raise RequestError(f"{file}: not a readable file ({problem}); train the method again") from problem
    attach_named(name)
    own = _insert_parameters(module, name)
    if _shapes(own) != _shapes(state):
        remove_adapters(module, [name])
        raise RequestError(f"{file}: these weights belong to another backbone")
    with torch.no_grad():
        for key, parameter in own.items():
            parameter.copy_(state[key])
            parameter.requires_grad_(False)


def _insert_parameters(module: torch.nn.Module, name: str) -> dict[str, torch.nn.Parameter]:
    """By the names that they have in the insert itself."""
    found = adapter_parameters(module, name)
    return {key.removeprefix(f"{HOLDER}.{name}."): parameter for key, parameter in found.items()}


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _without_name(module: torch.nn.Module, name: str) -> dict[str, torch.nn.Parameter]:
    """By the names that peft stores them under: `….lora_A.weight` for `….lora_A.NAME.weight`."""
    own = re.compile(rf"(\.lora_\w+)\.{re.escape(name)}(?=\.|$)")
    return {own.sub(r"\1", key): parameter for key, parameter in adapter_parameters(module, name).items()}


__all__ = [
    "active", "active_adapters", "adapter_parameters", "attach", "attach_lora", "attached", "fused_adapters",
    "load_adapters", "remove_adapters", "save_adapters",
]
