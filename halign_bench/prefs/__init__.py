"""Preferences that people gave: their files, a page to give them on, and how far people agree."""
