"""A leaderboard for people: what its tables say (`cells`, `content`, `judgements`), and a module for each form.

Everything is drawn from the one model, `leaderboard.Leaderboard`, and nothing is computed here but where to round.
"""

from halign_bench.tables.cells import number

__all__ = ["number"]
