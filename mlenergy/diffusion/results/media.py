"""Images from the host's memory to files, after the last window has closed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.results.files import written_aside
from mlenergy.diffusion.results.paths import RunPaths

if TYPE_CHECKING:
    import numpy as np

    from mlenergy.diffusion.prompts.sampling import Request

    Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def save_images(paths: RunPaths, requests: Sequence[Request], pixels: Pixels) -> list[str]:
    """Write PNG files, each aside and then renamed.

    Args:
        paths: names the files.
        requests: the image's requests, in the order of the images.
        pixels: uint8, (n, height, width, 3).

    Returns:
        The files' names relative to the result folder, in order: what `build_result` takes.

    Raises:
        ValueError: the array is not of that shape and type, or its length is not that of the requests.
        UserError: a file cannot be written.
    """
    from PIL import Image

    if pixels.dtype != "uint8" or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise ValueError(f"images have to be uint8 (n, height, width, 3), not {pixels.dtype} {pixels.shape}")
    if len(requests) != len(pixels):
        raise ValueError(f"{len(pixels)} images for {len(requests)} requests")
    names = []
    for request, image in zip(requests, pixels, strict=True):
        file = paths.image(request.index, request.prompt)
        with written_aside(file) as aside:
            Image.fromarray(image).save(aside, format="PNG")
        names.append(paths.relative(file))
    return names
