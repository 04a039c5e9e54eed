"""`python -m halign_bench` and the `halign-bench` command."""

from __future__ import annotations


def main() -> None:
    from halign_bench.cli import main as command_line

    raise SystemExit(command_line())


if __name__ == "__main__":
    main()
