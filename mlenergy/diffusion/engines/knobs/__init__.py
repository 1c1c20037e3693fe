"""Turning a plan's knobs on a loaded diffusers pipeline, in both engines, and seeing what they did."""

from mlenergy.diffusion.engines.knobs.applied import AppliedKnobs

__all__ = ["AppliedKnobs"]
