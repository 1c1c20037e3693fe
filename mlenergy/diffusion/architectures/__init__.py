"""Published architectures as data: what a model is built of, without its weights. No torch here."""

from mlenergy.diffusion.architectures.reader import (
    OWN_CONFIG,
    UNVERIFIED,
    Architecture,
    Component,
    Published,
    Tokenizer,
    architecture,
    architecture_from_folder,
    architecture_ids,
    has_architecture,
)

__all__ = [
    "OWN_CONFIG",
    "UNVERIFIED",
    "Architecture",
    "Component",
    "Published",
    "Tokenizer",
    "architecture",
    "architecture_from_folder",
    "architecture_ids",
    "has_architecture",
]
