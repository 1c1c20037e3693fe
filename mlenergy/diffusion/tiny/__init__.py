"""Tiny random pipelines, one file a family: the tests' and the demo's weights.

They are built in the process, saved as any published model is, and then loaded
by the same code. Nothing here imports torch before a folder has to be built.
"""

from mlenergy.diffusion.tiny.folder import is_tiny, tiny_folder, tiny_names

__all__ = ["is_tiny", "tiny_folder", "tiny_names"]
