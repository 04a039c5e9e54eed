"""The published weights that the extractors of `halign-bench score` need: what, where, whether right, and fetching."""
