"""Diffusion benchmark: seconds, joules and gigabytes of one generated image."""

__version__ = "0.1.0"
