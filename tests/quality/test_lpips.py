"""LPIPS against its definition, layer by layer, and the files that it takes."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics
from extractors import pictures
from torch.nn import functional

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.quality.lpips import Lpips

IMAGES, OTHERS = pictures(2, 0, (40, 33)), pictures(2, 1, (40, 33), shift=20)
# Convolutions by their number in torchvision's `features`: channels, kernel, stride, padding, pooled before.
ALEXNET = {
    0: (3, 64, 11, 4, 2, None),
    3: (64, 192, 5, 1, 2, (3, 2)),
    6: (192, 384, 3, 1, 1, (3, 2)),
    8: (384, 256, 3, 1, 1, None),
    10: (256, 256, 3, 1, 1, None),
}


@pytest.fixture(scope="module")
def weights():
    generator = torch.Generator().manual_seed(0)
    found = {}
    for number, (channels, out, kernel, *_) in ALEXNET.items():
        shape = (out, channels, kernel, kernel)
        spread = (2 / (channels * kernel**2)) ** 0.5
        found[f"features.{number}.weight"] = torch.randn(shape, generator=generator) * spread
        found[f"features.{number}.bias"] = torch.randn(out, generator=generator) * 0.1
    return {**found, "classifier.6.bias": torch.zeros(1000)}  # part of the published file, and not needed


def by_definition(weights, image, other):
    file = Path(torchmetrics.__file__).parent / "functional/image/lpips_models/alex.pth"
    linear = torch.load(file, map_location="cpu", weights_only=True)
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    a, b = (
        torch.from_numpy(((one / 127.5 - 1 - shift) / scale).transpose(2, 0, 1)[None]).float()
        for one in (image, other)
    )
    total = 0.0
    for layer, (number, (_, _, _, stride, padding, pooled)) in enumerate(ALEXNET.items()):
        kernel, bias = weights[f"features.{number}.weight"], weights[f"features.{number}.bias"]
        units = []
        for values in (a, b):
            before = functional.max_pool2d(values, *pooled) if pooled else values
            units.append(functional.relu(functional.conv2d(before, kernel, bias, stride, padding)))
        a, b = units
        x, y = (one[0].numpy() / np.linalg.norm(one[0].numpy(), axis=0) for one in units)
        weight = linear[f"lin{layer}.model.1.weight"].numpy().reshape(-1, 1, 1)
        total += float((weight * (x - y) ** 2).sum(0).mean())
    return total


def test_lpips_is_the_weighted_distance_of_unit_activations(tmp_path, weights):
    torch.save(weights, tmp_path / "alexnet.pth")
    lpips = Lpips("--lpips", str(tmp_path / "alexnet.pth"), torch.device("cpu"))
    expected = [by_definition(weights, *pair) for pair in zip(IMAGES, OTHERS, strict=True)]
    assert lpips.distances(IMAGES, OTHERS) == pytest.approx(expected, rel=1e-4) and min(expected) > 1e-3
    assert lpips.distances(IMAGES[:1], IMAGES[:1]) == [0]
    assert lpips.identity.settings["network"] == "alex" and lpips.identity.settings["linear_layers_sha256"]
    with pytest.raises(UserError, match="LPIPS needs images of at least 32 pixels each way"):
        lpips.distances(pictures(1, 0, (31, 64)), pictures(1, 0, (31, 64)))


def test_vgg16_is_recognized_and_other_files_are_refused(tmp_path, weights):
    widths = [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512]
    found, number, channels = {}, 0, 3
    for width in widths:
        if width:
            found[f"features.{number}.weight"] = torch.full((width, channels, 3, 3), 1e-3)
            found[f"features.{number}.bias"] = torch.zeros(width)
            channels = width
        number += 2 if width else 1
    torch.save(found, tmp_path / "vgg16.pth")
    assert (
        Lpips("--lpips", str(tmp_path / "vgg16.pth"), torch.device("cpu")).identity.settings["network"]
        == "vgg"
    )
    torch.save({**weights, "features.0.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not the weights of AlexNet or VGG16 as torchvision publishes them"):
        Lpips("--lpips", str(tmp_path / "other.pth"), torch.device("cpu"))


def test_a_torchscript_of_two_images_is_taken_as_it_is(tmp_path):
    class Mean(torch.nn.Module):
        def forward(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
            return (images - others).abs().mean((1, 2, 3))

    torch.jit.script(Mean()).save(str(tmp_path / "mean.pt"))
    found = Lpips("--lpips", str(tmp_path / "mean.pt"), torch.device("cpu")).distances(IMAGES, OTHERS)
    difference = np.abs(np.stack(IMAGES).astype(float) - np.stack(OTHERS)).mean((1, 2, 3)) / 127.5
    assert found == pytest.approx(difference, rel=1e-5)
