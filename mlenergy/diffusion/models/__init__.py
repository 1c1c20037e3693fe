"""What models are, as data: importable without torch."""

from mlenergy.diffusion.models.families import FAMILIES
from mlenergy.diffusion.models.listed import BY_ID, LISTED, TINY
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.models.spec import Dtype, EngineName, Family, Guidance, Mode, ModelSpec

__all__ = [
    "BY_ID",
    "FAMILIES",
    "LISTED",
    "TINY",
    "Dtype",
    "EngineName",
    "Family",
    "Guidance",
    "Mode",
    "ModelSpec",
    "resolve_model",
]
