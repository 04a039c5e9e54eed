"""Networks of diffusers and transformers, loaded whole or not at all.

Both libraries fill weights that are in no file with random numbers, say so in a warning and go on; here it is an error.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from halign_bench.errors import RequestError, first_line
from halign_bench.machine import out_of_memory


def load_whole(cls: Any, source: str | Path, where: str, unused: Collection[str] = (), **options: Any) -> Any:
    """`cls.from_pretrained(source, **options)`, its weights frozen, in eval mode.

    where   what is loaded, as a sentence about it begins
    unused  names of weights that may be missing
    Raises RequestError where it cannot be read or is not complete.
    """
    try:
        with quiet():
            module, said = cls.from_pretrained(source, output_loading_info=True, **options)
    except Exception as problem:  # every class, and the hub, has its own way of saying what is wrong
        if out_of_memory(problem):
            raise
        raise RequestError(f"{where} cannot be read as a {cls.__name__} ({first_line(problem)})") from None
    empty = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    if missing := sorted({*said["missing_keys"], *empty}.difference(unused)):
        raise RequestError(
            f"{where} cannot be read as a {cls.__name__} ({len(missing)} weights are in none of its files, among them "
            f"{missing[0]})"
        )
    return module.eval().requires_grad_(False)


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings and bars of the two libraries: what matters of them is an error here."""
    import diffusers
    import transformers

    loggings = diffusers.utils.logging, transformers.utils.logging
    levels = [logging.get_verbosity() for logging in loggings]
    for logging in loggings:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logging, level in zip(loggings, levels, strict=True):
            logging.set_verbosity(level)


__all__ = ["load_whole", "quiet"]
