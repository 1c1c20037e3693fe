"""What a plan needs before anything is started: memory, arithmetic, communication. No torch here."""

from mlenergy.diffusion.sizing.communication import Communication, communication_of
from mlenergy.diffusion.sizing.costs import ComponentCosts, costs_of
from mlenergy.diffusion.sizing.memory import MemoryEstimate
from mlenergy.diffusion.sizing.size import ShareOut, Sizing, size_plan

__all__ = [
    "Communication",
    "ComponentCosts",
    "MemoryEstimate",
    "ShareOut",
    "Sizing",
    "communication_of",
    "costs_of",
    "size_plan",
]
