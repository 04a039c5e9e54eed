"""The published extractors, one module each, behind the same metric code as the embedded track's."""
