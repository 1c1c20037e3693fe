"""Supervision of a run: status.json, signals, hangs, failures."""
