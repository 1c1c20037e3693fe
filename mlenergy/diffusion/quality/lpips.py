"""LPIPS: distance of two images in the activations of a network that was trained to recognize objects.

Source: Zhang, Isola, Efros, Shechtman, Wang, "The unreasonable effectiveness of deep features as a perceptual
metric", 2018, version 0.1: activations are scaled to length 1 at each pixel, their squared differences
weighted by learned linear layers (torchmetrics brings them), averaged over pixels and summed over layers. The
networks are the convolutions of AlexNet and VGG16 by the names of torchvision's published files. torchvision
itself is not needed: its common builds break a CPU build of torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.quality.extractor import Identity, name_of, read_weights, sha256_of, weights_file

if TYPE_CHECKING:
    from mlenergy.diffusion.quality.images import Pixels

LEAST_PX = 32  # below, the networks' last layers have no pixel left
# Of ImageNet's pixels on the scale from -1 to 1.
_MEAN, _DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_EPSILON = 1e-8  # under the root, as in torchmetrics

# A number is a 3 x 3 convolution with ReLU, 0 a pooling; the last ReLU of each group is compared.
_VGG = ((64, 64), (0, 128, 128), (0, 256, 256, 256), (0, 512, 512, 512), (0, 512, 512, 512))


class Lpips:
    """The distance with the weights of a file."""

    def __init__(self, option: str, text: str, device: torch.device) -> None:
        """Load a file: torchvision's alexnet or vgg16, or a TorchScript of two images from -1 to 1.

        Raises:
            UserError: there is no such file, or it is none of these.
        """
        file = weights_file(option, text)
        weights = read_weights(option, file, device)
        settings = {"dtype": "float32"}
        if isinstance(weights, torch.jit.ScriptModule):
            self._distance: nn.Module = weights
            settings["network"] = "TorchScript"
        else:
            network = _network(option, text, weights)
            self._distance, settings["network"] = (
                network.eval().requires_grad_(False).to(device),
                network.name,
            )
            settings["linear_layers_sha256"] = sha256_of(_linear_file(network.name))
        self._device = device
        self.identity = Identity("lpips", text, sha256_of(file), None, settings, name_of(device))

    @torch.inference_mode()
    def distances(self, images: Sequence[Pixels], others: Sequence[Pixels]) -> list[float]:
        """Distance of each pair; all images are of one size.

        Raises:
            UserError: they are too small.
        """
        if min(images[0].shape[:2]) < LEAST_PX:
            raise UserError(
                f"LPIPS needs images of at least {LEAST_PX} pixels each way; leave lpips out of --metrics"
            )
        found = self._distance(self._prepared(images), self._prepared(others))
        return [float(one) for one in found.flatten().double().cpu()]

    def _prepared(self, images: Sequence[Pixels]) -> Tensor:
        stacked = torch.stack([torch.from_numpy(image.copy()) for image in images]).to(self._device)
        return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


class _Network(nn.Module):
    """Convolutions up to each layer that is compared, and the weights of its channels."""

    def __init__(self, name: str, layers: Sequence[Sequence[nn.Module]], channels: Sequence[int]) -> None:
        super().__init__()
        self.name = name
        self.features = nn.Sequential(*(layer for group in layers for layer in group))
        self.ends = [sum(map(len, layers[: count + 1])) for count in range(len(layers))]
        for index, width in enumerate(channels):
            self.register_buffer(f"linear_{index}", torch.zeros(1, width, 1, 1))
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1))

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        values, total = torch.cat([images, others]), torch.zeros(len(images), device=images.device)
        values, start = (values - self.get_buffer("mean")) / self.get_buffer("deviation"), 0
        for index, end in enumerate(self.ends):
            values, start = self.features[start:end](values), end
            unit = values / (values.square().sum(1, keepdim=True) + _EPSILON).sqrt()
            of_images, of_others = unit.chunk(2)
            weighted = (of_images - of_others).square() * self.get_buffer(f"linear_{index}")
            total = total + weighted.sum(1).mean((1, 2))
        return total


def _alexnet() -> _Network:
    def convolution(channels: int, out: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, out, kernel, stride, padding), nn.ReLU()]

    layers = [
        convolution(3, 64, 11, 4, 2),
        [nn.MaxPool2d(3, 2), *convolution(64, 192, 5, 1, 2)],
        [nn.MaxPool2d(3, 2), *convolution(192, 384, 3, 1, 1)],
        convolution(384, 256, 3, 1, 1),
        convolution(256, 256, 3, 1, 1),
    ]
    return _Network("alex", layers, (64, 192, 384, 256, 256))


def _vgg16() -> _Network:
    layers: list[list[nn.Module]] = []
    width = 3
    for group in _VGG:
        layers.append([])
        for out in group:
            layers[-1] += [nn.Conv2d(width, out, 3, 1, 1), nn.ReLU()] if out else [nn.MaxPool2d(2, 2)]
            width = out or width
    return _Network("vgg", layers, tuple(group[-1] for group in _VGG))


def _network(option: str, text: str, weights: Mapping[str, Tensor]) -> _Network:
    """The network that a file of torchvision's belongs to.

    Raises:
        UserError: it belongs to neither.
    """
    for build in (_alexnet, _vgg16):
        network = build()
        own = {name: one for name, one in network.state_dict().items() if name.startswith("features.")}
        if all(name in weights and weights[name].shape == one.shape for name, one in own.items()):
            linear = torch.load(_linear_file(network.name), map_location="cpu", weights_only=True)
            layers = {f"linear_{n}": linear[f"lin{n}.model.1.weight"] for n in range(len(network.ends))}
            network.load_state_dict({name: weights[name] for name in own} | layers, strict=False)
            return network
    raise UserError(
        f"{option} {text}: these are not the weights of AlexNet or VGG16 as torchvision publishes them; give "
        "alexnet-owt-7be5be79.pth, vgg16-397923af.pth, or a TorchScript of two images"
    )


def _linear_file(name: str) -> Path:
    """Learned linear layers of LPIPS 0.1, in the package of torchmetrics."""
    found = find_spec("torchmetrics")
    assert found is not None and found.submodule_search_locations  # the extra was checked before
    return Path(found.submodule_search_locations[0]) / f"functional/image/lpips_models/{name}.pth"
