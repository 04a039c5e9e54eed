"""`python -m halign_bench` and the `halign-bench` command."""

from __future__ import annotations


def main() -> None:
    try:
        from halign_bench.cli import main as command_line
    except (MemoryError, ImportError, OSError) as problem:
        from halign_bench.machine import memory_sentence, out_of_memory

        if not out_of_memory(problem):
            raise
        raise SystemExit(f"halign-bench: {memory_sentence(problem)}") from None

    raise SystemExit(command_line())


if __name__ == "__main__":
    main()
