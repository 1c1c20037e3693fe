"""Slices and tiles of a VAE's decoder: what is decoded twice, and what is held at once. No torch.

Tiles have the sizes that the classes of diffusers 0.42.1 set for themselves (models/autoencoders/). The tiles
of a class that is not here are not known.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlenergy.diffusion.models.architectures.reader import Component
from mlenergy.diffusion.models.facts import latent_factor

# Class -> pixels of a tile's side, and from the begin of one tile to the next.
_WINDOWS_PX = {
    "AutoencoderKLWan": (256, 192),
    "AutoencoderKLQwenImage": (256, 192),
    "AutoencoderKLHunyuanVideo": (256, 192),
    "AutoencoderKLLTXVideo": (512, 448),
}
_OVERLAP = 0.25  # of AutoencoderKL's tiles, whose side is the size that it was trained at
_DEFAULT_SAMPLE = 32  # of AutoencoderKL, where its configuration names none
# CogVideoX's are half of the size that it was trained at, and overlap by these shares of height and width.
_COGVIDEOX_OVERLAP = (1 / 6, 1 / 5)
_COGVIDEOX_SAMPLE = (480, 720)


@dataclass(frozen=True)
class Axis:
    """Latent cells of a full tile, and from the begin of one tile to the next, along one side."""

    size: int
    stride: int

    def tiles(self, cells: int) -> list[int]:
        """Cells of each tile of a side with that many."""
        return [min(self.size, cells - begin) for begin in range(0, cells, self.stride)]


@dataclass(frozen=True)
class Tiling:
    """Tiles of one frame, or of an image."""

    height: Axis
    width: Axis

    def is_cut(self, height: int, width: int) -> bool:
        """True where a frame of these cells is larger than a tile."""
        return height > self.height.size or width > self.width.size

    def count(self, height: int, width: int) -> int:
        """Tiles of one frame."""
        return len(self.height.tiles(height)) * len(self.width.tiles(width))

    def ratio(self, height: int, width: int) -> float:
        """Cells of all tiles over those of the frame: above 1, as tiles overlap."""
        return sum(self.height.tiles(height)) * sum(self.width.tiles(width)) / (height * width)

    def largest(self, height: int, width: int) -> int:
        """Cells of the largest tile."""
        return max(self.height.tiles(height)) * max(self.width.tiles(width))


def tiling_of(vae: Component) -> Tiling | None:
    """Tiles that a decoder is cut into where tiling is on; None for a class whose tiles are not known."""
    factor, name = latent_factor(vae.config), vae.class_name
    if name in _WINDOWS_PX:
        size, stride = (pixels // factor for pixels in _WINDOWS_PX[name])
        return Tiling(Axis(size, stride), Axis(size, stride))
    if name == "AutoencoderKLCogVideoX":
        samples = (
            int(vae.config.get(key) or default)
            for key, default in zip(("sample_height", "sample_width"), _COGVIDEOX_SAMPLE, strict=True)
        )
        sides = [sample // 2 // factor for sample in samples]
        axes = [
            Axis(side, int(side * (1 - overlap)))
            for side, overlap in zip(sides, _COGVIDEOX_OVERLAP, strict=True)
        ]
        return Tiling(*axes)
    if name == "AutoencoderKL":
        sample = vae.config.get("sample_size") or _DEFAULT_SAMPLE
        side = int((sample[0] if isinstance(sample, (list, tuple)) else sample) / factor)
        axis = Axis(side, int(side * (1 - _OVERLAP)))
        return Tiling(axis, axis)
    return None
