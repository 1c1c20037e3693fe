"""Latents against the same figures computed by other means."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from mlenergy.diffusion.quality.latents import (
    LatentSize,
    Range,
    cropped,
    entropy_of,
    measure_latents,
    png_bits_per_pixel,
)

RANDOM = np.random.default_rng(7)


def test_sizes_of_the_published_vaes():
    # Stable Diffusion 1.x: 512 x 512 x 3 = 786,432 numbers to 64 x 64 x 4 = 16,384; 8 bits of each: 16 KiB.
    sd = LatentSize(512, 512, 4, 64, 64)
    assert (sd.pixel_values, sd.latent_values, sd.count_ratio) == (786_432, 16_384, 48)
    assert sd.bits_per_pixel == 0.5 == 16_384 * 8 / 512 / 512
    # FLUX.1 and SD3: 16 channels, so a quarter of that saving.
    flux = LatentSize(1024, 1024, 16, 128, 128)
    assert (flux.count_ratio, flux.bits_per_pixel) == (12, 2)
    wide = LatentSize(256, 512, 4, 32, 64)
    assert (wide.count_ratio, wide.bits_per_pixel) == (48, 0.5)


def test_levels_span_the_range_of_all_images_channel_by_channel():
    one = np.array([[[-1.0, 0.0]], [[10.0, 10.0]]], np.float32)
    two = np.array([[[0.5, 1.0]], [[10.0, 10.0]]], np.float32)
    shared = Range.over([one, two])
    assert shared.low.ravel().tolist() == [-1, 10] and shared.high.ravel().tolist() == [1, 10]
    assert shared.codes(one)[0].tolist() == [[0, 128]]  # 127.5 rounds to the even one
    assert shared.codes(two)[0].tolist() == [[191, 255]]
    assert shared.codes(one)[1].tolist() == [[0, 0]]  # a constant channel
    assert shared.values(shared.codes(two))[1].tolist() == [[10, 10]]
    step = 2 / 255
    assert np.abs(shared.values(shared.codes(two))[0] - two[0]).max() <= step / 2 + 1e-6


def test_entropy_is_scipys_of_each_channel_over_all_images():
    codes = [RANDOM.binomial(255, 0.5, (3, 16, 16)).astype(np.uint8) for _ in range(2)]
    codes = [np.stack([c[0], c[1] // 8, np.full((16, 16), 9)]).astype(np.uint8) for c in codes]
    expected, bias = [], []
    for channel in range(3):
        values = np.concatenate([c[channel].ravel() for c in codes])
        counts = np.unique(values, return_counts=True)[1]
        expected.append(stats.entropy(counts, base=2))
        bias.append((len(counts) - 1) / (2 * len(values) * np.log(2)))
    found = entropy_of(codes)
    assert found.bits_per_value == pytest.approx(np.mean(expected))
    assert found.bias_bits == pytest.approx(np.mean(bias)) and 0 < found.bias_bits < 0.1


def test_known_entropies():
    even = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert entropy_of([even]).bits_per_value == 8
    assert entropy_of([even % 4]).bits_per_value == 2
    assert entropy_of([np.zeros_like(even)]).bits_per_value == 0
    # Each image is constant, but not their union: what a decoder has to be told.
    assert entropy_of([np.zeros_like(even), np.ones_like(even)]).bits_per_value == 1


def test_the_correction_of_the_bias_hits_the_true_entropy():
    codes = RANDOM.integers(0, 256, (1, 32, 32)).astype(np.uint8)  # 8 bits, known from 1,024 values
    found = entropy_of([codes])
    assert found.bits_per_value < 7.9
    assert found.bits_per_value + found.bias_bits == pytest.approx(8, abs=0.05)


def test_an_image_is_cut_in_the_middle_and_never_scaled():
    image = np.arange(21 * 30 * 3).reshape(21, 30, 3).astype(np.uint8)
    assert np.array_equal(cropped(image, 8), image[2:18, 3:27])
    assert np.array_equal(cropped(image, 1), image)
    with pytest.raises(ValueError, match="30x21 pixels are less than 32"):
        cropped(image, 32)


def test_png_bits_are_those_of_a_file(tmp_path):
    image = RANDOM.integers(0, 255, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    assert png_bits_per_pixel(image) == (tmp_path / "image.png").stat().st_size * 8 / (24 * 32)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO((tmp_path / "image.png").read_bytes()))), image)


def encode(image):
    """A stand-in for a VAE whose loss is known: the mean of 8 x 8 pixels."""
    height, width = image.shape[0] // 8, image.shape[1] // 8
    return image.reshape(height, 8, width, 8, 3).mean((1, 3), dtype=np.float32).transpose(2, 0, 1)


def decode(latent):
    return np.rint(latent.transpose(1, 2, 0).repeat(8, 0).repeat(8, 1)).clip(0, 255).astype(np.uint8)


def test_the_whole_measurement_against_means_of_blocks():
    images = [RANDOM.integers(0, 256, size, dtype=np.uint8) for size in ((24, 32, 3), (16, 40, 3))]
    found = measure_latents(images, encode, decode)
    assert found["images_count"] == 2
    assert found["count_ratio"] == 64 and found["bits_per_pixel"] == 3 / 8
    psnrs = []
    for image in images:
        blocks = [
            [image[r : r + 8, c : c + 8].mean((0, 1)) for c in range(0, image.shape[1], 8)]
            for r in range(0, image.shape[0], 8)
        ]
        back = np.rint(np.kron(np.array(blocks), np.ones((8, 8, 1))))
        psnrs.append(10 * np.log10(255**2 / np.mean((image - back) ** 2)))
    assert found["reconstruction"]["psnr_db"]["mean"] == pytest.approx(np.mean(psnrs))
    assert found["reconstruction"]["psnr_db"]["minimum"] == pytest.approx(min(psnrs))
    means = np.concatenate([encode(image).reshape(3, -1) for image in images], axis=1)
    levels = np.rint((means - means.min(1)[:, None]) / np.ptp(means, axis=1)[:, None] * 255)
    entropies = [stats.entropy(np.unique(row, return_counts=True)[1], base=2) for row in levels]
    assert found["entropy_bits_per_value"] == pytest.approx(np.mean(entropies))
    values, pixels = 3 * (3 * 4 + 2 * 5), 24 * 32 + 16 * 40
    assert found["entropy_bits_per_pixel"] == pytest.approx(np.mean(entropies) * values / pixels)
    # The levels are closer than 8 bits of colour, so that they cost next to nothing here.
    coded = found["reconstruction_8_bit"]["psnr_db"]["mean"]
    assert coded == pytest.approx(np.mean(psnrs), abs=0.1)
    assert coded != found["reconstruction"]["psnr_db"]["mean"]


def test_a_vae_without_loss_has_no_psnr():
    flat = np.repeat(np.repeat(RANDOM.integers(0, 256, (2, 2, 3), dtype=np.uint8), 8, 0), 8, 1)
    found = measure_latents([flat], encode, decode)
    assert found["reconstruction"] == {"psnr_db": None, "ssim": {"mean": 1.0, "minimum": 1.0}}
