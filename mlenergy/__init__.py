"""Measures what one generated image costs in seconds, joules and gigabytes."""

__version__ = "0.1.0"
