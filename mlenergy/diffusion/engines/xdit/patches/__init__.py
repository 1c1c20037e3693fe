"""Patches of faults in xfuser, one file a subject; registry.py lists them."""
