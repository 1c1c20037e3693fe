"""Seconds and joules of a plan on a GPU, before it runs, from counts of its work."""
