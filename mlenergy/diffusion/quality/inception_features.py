"""Features of images for FID and KID, by the network of a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.quality.extractor import Identity, name_of, read_weights, sha256_of, weights_file
from mlenergy.diffusion.quality.inception import inception_of, prepared

if TYPE_CHECKING:
    import numpy as np

    from mlenergy.diffusion.quality.images import Pixels

    Features = np.ndarray[tuple[int, int], np.dtype[np.float32]]

OPTION = "--inception"


class FeatureExtractor:
    """Images as vectors, in float32."""

    def __init__(self, text: str, preprocessing: str, device: torch.device) -> None:
        """Load a file: a published state dict of Inception v3, or a network as TorchScript.

        A TorchScript takes uint8 images, (n, 3, height, width), and resizes them itself; one whose call has
        an argument `return_features` (StyleGAN's published Inception) is called with it.

        Raises:
            UserError: there is no such file, or it is neither.
        """
        file = weights_file(OPTION, text)
        weights = read_weights(OPTION, file, device)
        self._text, self._device, self._preprocessing = text, device, preprocessing
        settings = {"dtype": "float32"}
        if isinstance(weights, torch.jit.ScriptModule):
            self._network: torch.nn.Module = weights
            self._is_script = True
            forward: Any = weights.forward
            arguments = [one.name for one in forward.schema.arguments]
            self._options = {"return_features": True} if "return_features" in arguments else {}
            settings |= {"network": "TorchScript", "preprocessing": "the network's own"}
        else:
            self._network = inception_of(OPTION, text, weights, device)
            self._is_script, self._options = False, {}
            settings |= {"network": "Inception v3 of FID", "preprocessing": preprocessing}
        self.identity = Identity("inception", text, sha256_of(file), None, settings, name_of(device))

    @torch.inference_mode()
    def features(self, images: Sequence[Pixels]) -> Features:
        """Vectors, (n, features); all images are of one size.

        Raises:
            UserError: a TorchScript network does not take such images, or returns no matrix.
        """
        tensors = [torch.from_numpy(image.copy()).permute(2, 0, 1).to(self._device) for image in images]
        if self._is_script:
            try:
                found = self._network(torch.stack(tensors), **self._options)
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[-1][:200]
                raise UserError(
                    f"{OPTION} {self._text}: does not take uint8 images (n, 3, height, width) ({reason})"
                    "; give a network that does"
                ) from error
        else:
            found = self._network(torch.stack([prepared(image, self._preprocessing) for image in tensors]))
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images):
            raise UserError(
                f"{OPTION} {self._text}: returns no matrix (images, features); give a network that does"
            )
        matrix: Features = found.float().cpu().numpy()
        return matrix
