"""Size of a VAE's latents against its pixels, and what 8 bits a value and the VAE itself lose. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.quality.reference import psnr_db, ssim

if TYPE_CHECKING:
    import numpy as np

    Pixels = np.ndarray[Any, np.dtype[np.uint8]]  # (height, width, 3)
    Latent = np.ndarray[Any, np.dtype[np.float32]]  # (channels, height, width)
    Codes = np.ndarray[Any, np.dtype[np.uint8]]  # (channels, height, width)

BITS = 8
_LEVELS = 2**BITS
_COLOURS = 3


@dataclass(frozen=True)
class LatentSize:
    """Pixels of an image and values of its latent."""

    height_px: int
    width_px: int
    channels: int
    rows: int
    columns: int

    @property
    def pixel_values(self) -> int:
        """Numbers in the image: 3 × height × width."""
        return _COLOURS * self.height_px * self.width_px

    @property
    def latent_values(self) -> int:
        """Numbers in the latent: channels × rows × columns."""
        return self.channels * self.rows * self.columns

    @property
    def count_ratio(self) -> float:
        """Numbers in the image ÷ numbers in its latent, without a unit (Stable Diffusion: 48)."""
        return self.pixel_values / self.latent_values

    @property
    def bits_per_pixel(self) -> float:
        """Bits of the latent a pixel of the image at 8 bits a value: 8 × latent values ÷ (height × width).

        The image itself has 24.
        """
        return BITS * self.latent_values / (self.height_px * self.width_px)


@dataclass(frozen=True)
class Range:
    """The least and the largest value of each channel, between which the 256 levels lie evenly."""

    low: Latent  # (channels, 1, 1)
    high: Latent

    @classmethod
    def over(cls, latents: Sequence[Latent]) -> Range:
        """The range of all latents together: a decoder needs it once, not once an image."""
        import numpy as np

        low = np.min([latent.min(axis=(1, 2)) for latent in latents], axis=0)
        high = np.max([latent.max(axis=(1, 2)) for latent in latents], axis=0)
        return cls(low[:, None, None], high[:, None, None])

    def codes(self, latent: Latent) -> Codes:
        """The nearest level of each value: round(255 × (x - low) ÷ (high - low)); 0 in a constant channel."""
        import numpy as np

        width = np.where(self.high > self.low, self.high - self.low, 1)
        share = np.clip((latent - self.low) / width, 0, 1)
        codes: Codes = np.rint(share * (_LEVELS - 1)).astype(np.uint8)
        return codes

    def values(self, codes: Codes) -> Latent:
        """The values of the levels: low + code ÷ 255 × (high - low)."""
        import numpy as np

        share = codes.astype(np.float32) / (_LEVELS - 1)
        values: Latent = (self.low + share * (self.high - self.low)).astype(np.float32)
        return values


@dataclass(frozen=True)
class Entropy:
    """Empirical entropy of 8-bit latents, and the size of its bias."""

    bits_per_value: float
    bias_bits: float


def entropy_of(codes: Sequence[Codes]) -> Entropy:
    """Bits a value of the latents, coded by how often each level occurs in its channel.

    The mean over channels of -Σ p log₂ p, where p is a level's share of all values of the channel in all
    images (Shannon 1948). What neighbours tell of each other is left out, so that a coder that uses it
    needs less. From n values the share of k levels is known only so well: the figure is too small by about
    (k - 1) ÷ (2 n ln 2) bits (Miller 1955), given as `bias_bits`, the mean over channels.
    """
    import numpy as np

    bits, biases = [], []
    for channel in range(codes[0].shape[0]):
        values = np.concatenate([one[channel].ravel() for one in codes])
        counts = np.unique(values, return_counts=True)[1]
        n = int(counts.sum())
        shares = counts / n
        bits.append(float(-(shares * np.log2(shares)).sum()) + 0.0)  # -0.0 of a constant channel
        biases.append((len(counts) - 1) / (2 * n * math.log(2)))
    return Entropy(math.fsum(bits) / len(bits), math.fsum(biases) / len(biases))


def cropped(pixels: Pixels, multiple_px: int) -> Pixels:
    """The middle of an image whose sides are multiples of this; nothing is scaled.

    Raises:
        ValueError: a side is smaller than that.
    """
    height, width = (side // multiple_px * multiple_px for side in pixels.shape[:2])
    if not height or not width:
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise ValueError(f"{size} pixels are less than {multiple_px} pixels a side, one value of the latent")
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def png_bits_per_pixel(pixels: Pixels) -> float:
    """Bits a pixel of the image as a PNG file, without loss: 8 × bytes ÷ (height × width)."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return 8 * len(file.getvalue()) / float(pixels.shape[0] * pixels.shape[1])


def measure_latents(
    images: Sequence[Pixels], encode: Callable[[Pixels], Latent], decode: Callable[[Latent], Pixels]
) -> dict[str, Any]:
    """The sizes, the entropy and the likeness of reconstructions.

    Args:
        images: uint8, each of sides that the VAE takes, at least 11 pixels each way.
        encode: image -> its latent, without noise.
        decode: latent -> image, rounded to 8 bits.

    Returns:
        Means over the images: `count_ratio`, `bits_per_pixel` (at 8 bits a value),
        `entropy_bits_per_value`, `entropy_bits_per_pixel` (the former × latent values ÷ pixels),
        `entropy_bias_bits` (a value), `png_bits_per_pixel`; `reconstruction` (from the latent as it is) and
        `reconstruction_8_bit` (from its 256 levels), each with `psnr_db` (over the images that differ, null
        where none does) and `ssim`, mean and minimum; `images`: the same of each.
    """
    latents = [encode(image) for image in images]
    sizes = [LatentSize(*i.shape[:2], *latent.shape) for i, latent in zip(images, latents, strict=True)]
    shared = Range.over(latents)
    codes = [shared.codes(latent) for latent in latents]
    entropy = entropy_of(codes)
    rows: list[dict[str, Any]] = []
    for image, latent, code, size in zip(images, latents, codes, sizes, strict=True):
        exact, coded = decode(latent), decode(shared.values(code))
        rows.append(
            {
                "width_px": size.width_px,
                "height_px": size.height_px,
                "latent_shape": [size.channels, size.rows, size.columns],
                "count_ratio": size.count_ratio,
                "bits_per_pixel": size.bits_per_pixel,
                "png_bits_per_pixel": png_bits_per_pixel(image),
                "reconstruction": {"psnr_db": psnr_db(exact, image), "ssim": ssim(exact, image)},
                "reconstruction_8_bit": {"psnr_db": psnr_db(coded, image), "ssim": ssim(coded, image)},
            }
        )
    values, pixels = sum(s.latent_values for s in sizes), sum(s.height_px * s.width_px for s in sizes)
    return {
        "images_count": len(images),
        "count_ratio": _mean([size.count_ratio for size in sizes]),
        "bits_per_pixel": _mean([size.bits_per_pixel for size in sizes]),
        "png_bits_per_pixel": _mean([row["png_bits_per_pixel"] for row in rows]),
        "entropy_bits_per_value": entropy.bits_per_value,
        "entropy_bits_per_pixel": entropy.bits_per_value * values / pixels,
        "entropy_bias_bits": entropy.bias_bits,
        "reconstruction": _summary(rows, "reconstruction"),
        "reconstruction_8_bit": _summary(rows, "reconstruction_8_bit"),
        "images": rows,
    }


def _summary(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    psnrs = [row[name]["psnr_db"] for row in rows if row[name]["psnr_db"] is not None]
    ssims = [row[name]["ssim"] for row in rows]
    return {
        "psnr_db": {"mean": _mean(psnrs), "minimum": min(psnrs)} if psnrs else None,
        "ssim": {"mean": _mean(ssims), "minimum": min(ssims)},
    }


def _mean(values: Sequence[float]) -> float:
    return float(math.fsum(values) / len(values))
