"""Has a run become worse than its baseline, by more than a margin? For CI, with how many clips that takes to tell."""
