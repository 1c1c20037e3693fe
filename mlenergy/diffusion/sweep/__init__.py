"""`mlenergy sweep`: many configurations, each in whole new processes, resumable. Imports no torch."""

from mlenergy.diffusion.sweep.command import main

__all__ = ["main"]
