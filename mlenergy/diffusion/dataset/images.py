"""From the bytes of a picture to a PNG file: upright, RGB, and of the asked size."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from mlenergy.diffusion.dataset.captions import UnusableRow
from mlenergy.diffusion.results.atomic import written_aside

# Recorded in every prepared folder. A change of the steps changes this text.
STEPS = "v1: EXIF orientation applied; transparency over white; RGB"
CROP = "largest centred square, resampled by Pillow's LANCZOS (antialiased)"


def decoded(content: bytes | Path) -> Image.Image:
    """A picture as upright RGB.

    Raises:
        UnusableRow: it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as opened:
                return _rgb(ImageOps.exif_transpose(opened))
    except Exception as error:  # Pillow's readers raise what they like on a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnusableRow(f"its image cannot be read ({reason})") from error


def save_png(image: Image.Image, path: Path, size_px: int | None) -> tuple[str, bool]:
    """Write a picture, cropped and resampled to a square where a size is given.

    Returns:
        SHA-256 of the file, and True where the picture was enlarged.

    Raises:
        UserError: the file cannot be written.
    """
    enlarged = size_px is not None and min(image.size) < size_px
    if size_px is not None:
        image = ImageOps.fit(image, (size_px, size_px), method=Image.Resampling.LANCZOS)
    with written_aside(path, "--out") as aside:
        image.save(aside, format="PNG")
        digest = hashlib.sha256(aside.read_bytes()).hexdigest()
    return digest, enlarged


def _rgb(image: Any) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        raise ValueError(f"it has more than 8 bits a channel ({image.mode}), which would be cut off")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")  # type: ignore[no-any-return]
