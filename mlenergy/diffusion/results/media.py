"""Images and videos from the host's memory to files, after the last window has closed."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.results.atomic import written_aside
from mlenergy.diffusion.results.paths import RunPaths

if TYPE_CHECKING:
    import numpy as np
    import torch

    from mlenergy.diffusion.prompts.sampling import Request

    Pixels = np.ndarray[Any, np.dtype[np.uint8]]

# Visually lossless, so that a saved video shows what was generated; smaller numbers mostly cost space.
_CONSTANT_RATE_FACTOR = "12"


def output_names(paths: RunPaths, requests: Sequence[Request], *, videos: bool = False) -> list[str]:
    """Names of the files that `save_outputs` writes, relative to the result folder."""
    place = paths.video if videos else paths.image
    return [paths.relative(place(request.index, request.prompt)) for request in requests]


def save_outputs(
    paths: RunPaths, requests: Sequence[Request], pixels: Pixels, fps: int | None = None
) -> list[str]:
    """Write PNG or MP4 files, each aside and then renamed.

    Args:
        paths: names the files.
        requests: the outputs' requests, in their order.
        pixels: uint8, images (n, height, width, 3) or videos (n, frames, height, width, 3).
        fps: frames per second of the videos; None: images.

    Returns:
        The files' names relative to the result folder, in order.

    Raises:
        ValueError: the array is not of that shape and type, or its length is not that of the requests.
        UserError: a file cannot be written.
    """
    sides = 4 if fps is None else 5
    if pixels.dtype != "uint8" or pixels.ndim != sides or pixels.shape[-1] != 3:
        shape = "(n, height, width, 3)" if fps is None else "(n, frames, height, width, 3)"
        raise ValueError(f"outputs have to be uint8 {shape}, not {pixels.dtype} {pixels.shape}")
    if len(requests) != len(pixels):
        raise ValueError(f"{len(pixels)} outputs for {len(requests)} requests")
    for request, output in zip(requests, pixels, strict=True):
        place = paths.image if fps is None else paths.video
        with written_aside(place(request.index, request.prompt)) as aside:
            _save_image(aside, output) if fps is None else _save_video(aside, output, fps)
    return output_names(paths, requests, videos=fps is not None)


def latent_names(paths: RunPaths, requests: Sequence[Request]) -> list[str]:
    """Names of the files that `save_latents` writes, relative to the result folder."""
    return [paths.relative(paths.latent(request.index, request.prompt)) for request in requests]


def save_latents(paths: RunPaths, requests: Sequence[Request], latents: Sequence[torch.Tensor]) -> None:
    """Write safetensors files, each aside and then renamed: one tensor `latents` in the decoder's own type.

    Args:
        paths: names the files.
        requests: the outputs' requests, in their order.
        latents: of each output, on the host: (channels, height, width), of videos with frames.

    Raises:
        ValueError: they are not as many as the requests.
        UserError: a file cannot be written.
    """
    from safetensors.torch import save_file

    if len(latents) != len(requests):
        raise ValueError(f"{len(latents)} latents for {len(requests)} requests")
    for request, one in zip(requests, latents, strict=True):
        with written_aside(paths.latent(request.index, request.prompt)) as aside:
            save_file({"latents": one.contiguous()}, str(aside))


def _save_image(file: Path, image: Pixels) -> None:
    from PIL import Image

    Image.fromarray(image).save(file, format="PNG")


def _save_video(file: Path, frames: Pixels, fps: int) -> None:
    """H.264 in an MP4, which every browser plays; one thread, so that the same frames give the same file."""
    import av

    height, width = frames.shape[1:3]
    with av.open(str(file), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"crf": _CONSTANT_RATE_FACTOR, "preset": "fast"}
        for array in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
