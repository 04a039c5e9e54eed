"""The options of commands that can work on a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

ExecutorName = Annotated[
    str, typer.Option("--executor", help="Where the work is done: local, or ray (see docs/scale.md).", metavar="NAME")
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="Of the cluster; else $RAY_ADDRESS, the one on this machine, or a new one.", metavar="HOST:PORT"),
]
TaskCpus = Annotated[float | None, typer.Option(help="Processors of a task on Ray; else 1.", metavar="N")]
TaskGpus = Annotated[
    float | None,
    typer.Option(help="GPUs of a task on Ray, 0.5: two share one; else 1 where the cluster has any.", metavar="N"),
]

__all__ = ["ExecutorName", "RayAddress", "TaskCpus", "TaskGpus"]
