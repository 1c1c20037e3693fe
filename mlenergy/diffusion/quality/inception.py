"""Inception v3 as FID is defined on it: the network of the TensorFlow graph of 2015-12-05, and its inputs.

Source: Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium",
2017; Szegedy et al., "Rethinking the Inception architecture for computer vision", 2015. The names of the
parameters are those of the published conversions of the graph (pytorch-fid's, torch-fidelity's). Those
packages come with torchvision, whose common builds break a CPU build of torch; hence the description here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlenergy.diffusion.errors import UserError

FEATURES = 2048
_SIZE_PX = 299
_CLASSES = 1008  # of the published classifier, which features do not need

PREPROCESSINGS = ("pytorch-fid", "torch-fidelity")


class _Convolution(nn.Module):
    """Convolution, batch normalization, ReLU."""

    def __init__(
        self, channels: int, out: int, kernel: int | tuple[int, int], stride: int, padded: bool
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if padded else 0
        self.conv = nn.Conv2d(channels, out, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, values: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(values)))


# A step of a branch: name, channels, kernel, stride. A reduction (stride 2) is not padded, all others are.
_Step = tuple[str, int, int | tuple[int, int], int]
_WIDE, _HIGH = (1, 7), (7, 1)


class _Mixed(nn.Module):
    """Branches beside each other, whose outputs are joined; a branch may fork in its last step.

    Args:
        channels: of the input.
        branches: steps of each; a last step that is a pair of steps forks.
        pool: kind of the pooling branch, avg or max, or reduce: pooling alone, with stride 2.
        pool_out: channels of the convolution that follows the pooling; 0 for none.
    """

    def __init__(self, channels: int, branches: list[list[Any]], pool: str, pool_out: int) -> None:
        super().__init__()
        self.branches = [[_names(step) for step in steps] for steps in branches]
        self.pool = pool
        for steps in branches:
            width = channels
            for step in steps:
                fork = step if isinstance(step, list) else [step]
                for name, out, kernel, stride in fork:
                    padded = stride == 1
                    self.add_module(name, _Convolution(width, out, kernel, stride, padded))
                width = fork[0][1]
        if pool_out:
            self.branch_pool = _Convolution(channels, pool_out, 1, 1, True)

    def forward(self, values: Tensor) -> Tensor:
        outputs = []
        for steps in self.branches:
            branch = values
            for names in steps:
                branch = torch.cat([self.get_submodule(name)(branch) for name in names], 1)
            outputs.append(branch)
        return torch.cat([*outputs, self._pooled(values)], 1)

    def _pooled(self, values: Tensor) -> Tensor:
        if self.pool == "reduce":
            return functional.max_pool2d(values, 3, 2)
        if self.pool == "max":  # the last block of the graph, unlike the paper's
            pooled = functional.max_pool2d(values, 3, 1, 1)
        else:  # TensorFlow leaves padding out of the mean
            pooled = functional.avg_pool2d(values, 3, 1, 1, count_include_pad=False)
        convolved: Tensor = self.branch_pool(pooled)
        return convolved


def _names(step: Any) -> list[str]:
    return [one[0] for one in step] if isinstance(step, list) else [step[0]]


def _block_35(channels: int, pool_out: int) -> _Mixed:
    branches: list[list[Any]] = [
        [("branch1x1", 64, 1, 1)],
        [("branch5x5_1", 48, 1, 1), ("branch5x5_2", 64, 5, 1)],
        [("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 1), ("branch3x3dbl_3", 96, 3, 1)],
    ]
    return _Mixed(channels, branches, "avg", pool_out)


def _block_17(inner: int) -> _Mixed:
    five = [_HIGH, _WIDE, _HIGH, _WIDE]
    branches: list[list[Any]] = [
        [("branch1x1", 192, 1, 1)],
        [("branch7x7_1", inner, 1, 1), ("branch7x7_2", inner, _WIDE, 1), ("branch7x7_3", 192, _HIGH, 1)],
        [("branch7x7dbl_1", inner, 1, 1)]
        + [(f"branch7x7dbl_{n}", 192 if n == 5 else inner, kernel, 1) for n, kernel in enumerate(five, 2)],
    ]
    return _Mixed(768, branches, "avg", 192)


def _block_8(channels: int, pool: str) -> _Mixed:
    def fork(name: str) -> list[_Step]:
        return [(f"{name}a", 384, (1, 3), 1), (f"{name}b", 384, (3, 1), 1)]

    branches: list[list[Any]] = [
        [("branch1x1", 320, 1, 1)],
        [("branch3x3_1", 384, 1, 1), fork("branch3x3_2")],
        [("branch3x3dbl_1", 448, 1, 1), ("branch3x3dbl_2", 384, 3, 1), fork("branch3x3dbl_3")],
    ]
    return _Mixed(channels, branches, pool, 192)


class Inception(nn.Module):
    """(n, 3, 299, 299) from -1 to 1 -> (n, 2048): the pooled activations before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        reduce_17: list[list[Any]] = [
            [("branch3x3", 384, 3, 2)],
            [("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 1), ("branch3x3dbl_3", 96, 3, 2)],
        ]
        reduce_8: list[list[Any]] = [
            [("branch3x3_1", 192, 1, 1), ("branch3x3_2", 320, 3, 2)],
            [
                ("branch7x7x3_1", 192, 1, 1),
                ("branch7x7x3_2", 192, _WIDE, 1),
                ("branch7x7x3_3", 192, _HIGH, 1),
                ("branch7x7x3_4", 192, 3, 2),
            ],
        ]
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, 2, False)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3, 1, False)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3, 1, True)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1, 1, False)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3, 1, False)
        self.Mixed_5b = _block_35(192, 32)
        self.Mixed_5c = _block_35(256, 64)
        self.Mixed_5d = _block_35(288, 64)
        self.Mixed_6a = _Mixed(288, reduce_17, "reduce", 0)
        self.Mixed_6b, self.Mixed_6c = _block_17(128), _block_17(160)
        self.Mixed_6d, self.Mixed_6e = _block_17(160), _block_17(192)
        self.Mixed_7a = _Mixed(768, reduce_8, "reduce", 0)
        self.Mixed_7b, self.Mixed_7c = _block_8(1280, "avg"), _block_8(2048, "max")
        self.fc = nn.Linear(FEATURES, _CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of prepared images."""
        values: Tensor = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        values = functional.max_pool2d(values, 3, 2)
        values = functional.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(values)), 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                values = block(values)
        return values.mean((2, 3))


def inception_of(option: str, place: str, weights: Mapping[str, Tensor], device: torch.device) -> Inception:
    """The network with a published state dict.

    Raises:
        UserError: its names or shapes are others.
    """
    network = Inception().eval().requires_grad_(False)
    own = network.state_dict()
    optional = {name for name in own if name.endswith("num_batches_tracked")}  # older files lack them
    wrong = [name for name in own if name not in weights and name not in optional]
    wrong += [name for name in weights if name not in own]
    wrong += [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if wrong:
        raise UserError(
            f"{option} {place}: these are not the weights of FID's Inception v3 ({wrong[0]} and "
            f"{len(wrong) - 1} more do not fit); give pt_inception-2015-12-05 or a TorchScript network"
        )
    network.load_state_dict(dict(weights), strict=False)
    return network.to(device, torch.float32)


def prepared(image: Tensor, preprocessing: str) -> Tensor:
    """An image as the network takes it: (3, 299, 299), about -1 to 1.

    FID changes with the way images are resized (Parmar, Zhang, Zhu, "On aliased resizing and surprising
    subtleties in GAN evaluation", 2022), so each way is that of a program whose values are published: neither
    filters when it makes an image smaller.

    Args:
        image: uint8, (3, height, width).
        preprocessing: pytorch-fid (bilinear between pixel centres; MLPerf's too) or torch-fidelity (as
            TensorFlow 1 did: pixel i of the output lies at i · size / 299 of the input).
    """
    values = image.float()[None]
    size = (_SIZE_PX, _SIZE_PX)
    if preprocessing == "pytorch-fid":
        small = functional.interpolate(values / 255, size=size, mode="bilinear", align_corners=False)
        return (2 * small - 1)[0]
    return ((_like_tensorflow(values) - 128) / 128)[0]


def _like_tensorflow(values: Tensor) -> Tensor:
    """Bilinear at positions i · size / 299, one axis after the other; (1, 3, height, width)."""
    for axis in (2, 3):
        length = values.shape[axis]
        position = torch.arange(_SIZE_PX, dtype=torch.float32, device=values.device) * (length / _SIZE_PX)
        low = position.floor().long().clamp(max=length - 1)
        high = (low + 1).clamp(max=length - 1)
        shape = [1, 1, 1, 1]
        shape[axis] = _SIZE_PX
        share = (position - low).view(shape)
        lower, upper = values.index_select(axis, low), values.index_select(axis, high)
        values = lower + (upper - lower) * share
    return values
