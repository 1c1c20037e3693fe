"""Images from the host's memory to files, after the last window has closed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.results.atomic import written_aside
from mlenergy.diffusion.results.paths import RunPaths

if TYPE_CHECKING:
    import numpy as np

    from mlenergy.diffusion.prompts.sampling import Request

    Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def image_names(paths: RunPaths, requests: Sequence[Request]) -> list[str]:
    """Names of the files that `save_images` writes, relative to the result folder."""
    return [paths.relative(paths.image(request.index, request.prompt)) for request in requests]


def save_images(paths: RunPaths, requests: Sequence[Request], pixels: Pixels) -> list[str]:
    """Write PNG files, each aside and then renamed.

    Args:
        paths: names the files.
        requests: the images' requests, in the order of the images.
        pixels: uint8, (n, height, width, 3).

    Returns:
        The files' names relative to the result folder, in order.

    Raises:
        ValueError: the array is not of that shape and type, or its length is not that of the requests.
        UserError: a file cannot be written.
    """
    from PIL import Image

    if pixels.dtype != "uint8" or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise ValueError(f"images have to be uint8 (n, height, width, 3), not {pixels.dtype} {pixels.shape}")
    if len(requests) != len(pixels):
        raise ValueError(f"{len(pixels)} images for {len(requests)} requests")
    for request, image in zip(requests, pixels, strict=True):
        with written_aside(paths.image(request.index, request.prompt)) as aside:
            Image.fromarray(image).save(aside, format="PNG")
    return image_names(paths, requests)
