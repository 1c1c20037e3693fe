"""FID and KID of features, by torchmetrics."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from mlenergy.diffusion.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    Matrix = np.ndarray[Any, np.dtype[Any]]

_AT_A_TIME = 4096  # features that are in memory in float64
LARGEST_SUBSET = 1000  # images in a subset of KID, as its authors have it


class _Features(torch.nn.Module):
    """Passes features on: they are computed, and kept, before."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.num_features = count

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of a reference's features, as pytorch-fid and MLPerf write them."""

    mean: Matrix  # (features,)
    covariance: Matrix  # (features, features)
    sha256: str  # of the file
    place: str


def read_statistics(path: Path) -> Statistics:
    """A file with `mu` and `sigma`.

    Raises:
        UserError: it is none, or its shapes do not fit each other.
    """
    import numpy as np

    from mlenergy.diffusion.quality.extractor import sha256_of

    try:
        with np.load(path, allow_pickle=False) as content:
            mean, covariance = (np.asarray(content[name], np.float64) for name in ("mu", "sigma"))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"--reference {path}: not a file of mu and sigma ({error}); write it again"
        ) from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not np.isfinite(covariance).all():
        raise UserError(
            f"--reference {path}: mu {mean.shape} and sigma {covariance.shape} do not fit; write it again"
        )
    return Statistics(mean, covariance, sha256_of(path), str(path))


def frechet(features: Matrix, reference: Matrix | Statistics) -> float:
    """Fréchet distance of two normal distributions, ‖μ - μ'‖² + tr(Σ + Σ' - 2 (Σ Σ')^½), in float64.

    Source: Heusel et al. 2017. Covariances are divided by n - 1.

    Args:
        features: (images, features), two images at least.
        reference: the same of the reference, or its mean and covariance.

    Raises:
        UserError: the reference has another number of features.
    """
    metric = FrechetInceptionDistance(feature=_Features(features.shape[1])).set_dtype(torch.float64)
    for is_real, matrix in ((False, features), (True, reference)):
        if isinstance(matrix, Statistics):
            if len(matrix.mean) != features.shape[1]:
                raise UserError(
                    f"--reference: its statistics have {len(matrix.mean)} features, the extractor makes "
                    f"{features.shape[1]}; give statistics of the same network"
                )
            _set_statistics(metric, matrix)
            continue
        for start in range(0, len(matrix), _AT_A_TIME):
            part = torch.as_tensor(matrix[start : start + _AT_A_TIME], dtype=torch.float64)
            metric.update(part, real=is_real)
    # Rounding makes the distance of equal sets a little less than 0.
    return max(float(metric.compute()), 0.0)


def _set_statistics(metric: FrechetInceptionDistance, statistics: Statistics) -> None:
    """Sums of two images that would have this mean and covariance: what torchmetrics keeps is sums."""
    mean = torch.as_tensor(statistics.mean)
    metric.real_features_sum = 2 * mean
    metric.real_features_cov_sum = torch.as_tensor(statistics.covariance) + 2 * torch.outer(mean, mean)
    metric.real_features_num_samples = torch.tensor(2)


def subset_size(images: int, reference: int, asked: int | None) -> int:
    """Images in each subset of KID: 1000, or half of the smaller set where that is less.

    A subset of nearly all images would be nearly the same every time, and its spread say nothing.

    Raises:
        UserError: there are too few images.
    """
    least = min(images, reference)
    if asked is not None:
        if asked > least:
            raise UserError(
                f"--kid_subset_size {asked}: there are {images} images and {reference} of the reference; "
                f"give at most {least}"
            )
        return asked
    if least < 4:
        raise UserError(
            f"KID needs 4 images and 4 of the reference, here are {images} and {reference}; make more"
        )
    return min(LARGEST_SUBSET, least // 2)


def kernel(features: Matrix, reference: Matrix, *, subsets: int, size: int, seed: int) -> tuple[float, float]:
    """KID, (k(x, y) = (x·y / d + 1)³, unbiased), and its standard deviation over the subsets.

    Source: Bińkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs", 2018.

    Args:
        features: (images, features).
        reference: the same of the reference.
        subsets: how many are drawn, without replacement within one.
        size: images in each.
        seed: of the draw.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # that it keeps all features
        metric = KernelInceptionDistance(
            feature=_Features(features.shape[1]), subsets=subsets, subset_size=size
        )
        torch.manual_seed(seed)
        metric.update(torch.as_tensor(features, dtype=torch.float64), real=False)
        metric.update(torch.as_tensor(reference, dtype=torch.float64), real=True)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)
