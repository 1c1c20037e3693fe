"""Applies a plan's optimizations to a loaded diffusers pipeline, in both engines, and observes them."""
