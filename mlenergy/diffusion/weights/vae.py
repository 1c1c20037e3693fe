"""The VAE of a model by itself: images to latents and back, without the rest of the pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mlenergy.diffusion.models.hub import explain, read_model
from mlenergy.diffusion.models.spec import is_tiny
from mlenergy.diffusion.weights.random.modules import component_class
from mlenergy.diffusion.weights.tiny import tiny_folder

_NAME = "vae"
_MIDDLE = 127.5  # pipelines give the VAE colours from -1 to 1


class Vae:
    """A model's VAE in float32, in eval mode."""

    def __init__(self, module: Any, device: torch.device) -> None:
        self._module = module.to(device).eval()
        self._device = device

    @classmethod
    def load(cls, model_id: str, device: str, revision: str | None = None) -> Vae:
        """The VAE of a hub id, a folder or a tiny model. From the hub only its own files travel.

        Raises:
            UserError: the model cannot be had, or has no VAE.
        """
        source = str(tiny_folder(model_id)) if is_tiny(model_id) else model_id
        folder = read_model(source, revision)
        folder.component_config(_NAME)
        library, name = folder.components[_NAME]
        kind: Any = component_class(f"{library}.{name}")
        try:
            module = kind.from_pretrained(
                folder.hub_id or folder.path,
                subfolder=_NAME,
                revision=revision if folder.hub_id else None,
                dtype=torch.float32,
                use_safetensors=True,
            )
        except (OSError, ValueError) as error:
            raise explain(error, model_id, revision) from error
        return cls(module, torch.device(device))

    @torch.no_grad()
    def encode(self, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Image, uint8 (height, width, 3), to the mean of its latent's distribution, (channels, h, w).

        The mean, not a draw: as the pipelines' image-to-image would, without its noise. The scale that
        pipelines put on latents is left out; it moves levels and range alike.
        """
        colours = torch.from_numpy(np.array(pixels)).to(self._device, torch.float32)
        colours = (colours / _MIDDLE - 1).permute(2, 0, 1)[None]
        latent = self._module.encode(colours).latent_dist.mode()[0]
        return latent.cpu().numpy()  # type: ignore[no-any-return]

    @torch.no_grad()
    def decode(self, latent: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Latent, (channels, h, w), to the image, uint8 (height, width, 3): cut off to 0 to 255, rounded."""
        values = torch.from_numpy(latent)[None].to(self._device, torch.float32)
        colours = self._module.decode(values, return_dict=False)[0][0].permute(1, 2, 0)
        rounded = ((colours + 1) * _MIDDLE).clamp(0, 255).round().to(torch.uint8)
        return rounded.cpu().numpy()  # type: ignore[no-any-return]
