"""FID and KID of saved images against their definitions, on a small network."""

import numpy as np
import pytest
import torch
from extractors import FEATURES, pictures, save_folder, save_run, small_inception
from scipy.linalg import sqrtm

from mlenergy.diffusion.quality.evaluate import Extractors
from mlenergy.diffusion.results.quality import compute
from mlenergy.diffusion.results.verify import differences

IMAGES, OTHERS = pictures(12, 0), pictures(15, 1, (40, 28), shift=30)


def features_of(network, images):
    with torch.no_grad():
        rows = [
            network(torch.from_numpy(image).permute(2, 0, 1)[None])[0].double().numpy() for image in images
        ]
    return np.stack(rows)


def frechet(x, y):
    """By the matrix square root of the product, as in the paper; torchmetrics takes eigenvalues."""
    difference = x.mean(0) - y.mean(0)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return difference @ difference + np.trace(a + b - 2 * sqrtm(a @ b).real)


def kid(x, y):
    """Unbiased, of two sets of one size."""

    def kernel(one, other):
        return (one @ other / len(one) + 1) ** 3

    m = len(x)
    within = sum(kernel(z[i], z[j]) for z in (x, y) for i in range(m) for j in range(m) if i != j)
    between = sum(kernel(one, other) for one in x for other in y)
    return within / (m * (m - 1)) - 2 * between / m**2


@pytest.fixture
def network(tmp_path):
    return small_inception(tmp_path / "inception.pt")


def test_fid_is_the_frechet_distance_of_the_features(tmp_path, network):
    run = save_run(tmp_path / "run", IMAGES)
    reference = save_folder(tmp_path / "reference", OTHERS)
    section = compute(run, ["fid"], reference, Extractors(inception=str(tmp_path / "inception.pt")))
    expected = frechet(features_of(network, IMAGES), features_of(network, OTHERS))
    assert section["fid"] == pytest.approx(expected, rel=1e-4) and expected > 1e-3
    entry = section["metrics"]["fid"]
    assert entry["images"] == 12 and entry["reference"]["images"] == 15
    assert entry["settings"]["features"] == FEATURES and entry["notes"] == []
    assert differences(run) == []
