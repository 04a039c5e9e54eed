"""halign-bench: one protocol for alignment methods of human-animation models.

The package itself imports nothing heavy; `halign_bench.registry` finds methods,
metrics, backbones and tracks, and loads them only when they are used.
"""

__version__ = "0.1.0"
