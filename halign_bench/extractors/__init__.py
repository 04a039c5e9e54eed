"""Extractors with the published nets: each turns clips into the features that a metric reads."""
