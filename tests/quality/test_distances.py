"""FID and KID of saved images against their definitions, on a small network."""

import numpy as np
import pytest
import torch
from extractors import FEATURES, pictures, save_folder, save_run, small_inception
from scipy.linalg import sqrtm

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.quality.distances import frechet, kernel, subset_size
from mlenergy.diffusion.quality.evaluate import Extractors, Settings
from mlenergy.diffusion.results.quality import compute
from mlenergy.diffusion.results.verify import differences

IMAGES, OTHERS = pictures(12, 0), pictures(15, 1, (40, 28), shift=30)


def features_of(network, images):
    with torch.no_grad():
        tensors = [torch.from_numpy(image).permute(2, 0, 1)[None] for image in images]
        return np.concatenate([network(tensor).double().numpy() for tensor in tensors])


def frechet_by_square_root(x, y):
    """As in the paper, by the matrix square root of the product; torchmetrics takes eigenvalues."""
    difference = x.mean(0) - y.mean(0)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return difference @ difference + np.trace(a + b - 2 * sqrtm(a @ b).real)


def squared_discrepancy(x, y):
    """Unbiased, of two sets of one size, pair by pair."""

    def of_pair(one, other):
        return (one @ other / len(one) + 1) ** 3

    m = len(x)
    within = sum(of_pair(z[i], z[j]) for z in (x, y) for i in range(m) for j in range(m) if i != j)
    between = sum(of_pair(one, other) for one in x for other in y)
    return within / (m * (m - 1)) - 2 * between / m**2


@pytest.fixture
def network(tmp_path):
    return small_inception(tmp_path / "inception.pt")


@pytest.fixture
def extractors(tmp_path, network):
    return Extractors(inception=str(tmp_path / "inception.pt"))


def test_fid_is_the_frechet_distance_of_the_features(tmp_path, network, extractors):
    run = save_run(tmp_path / "run", IMAGES)
    reference = save_folder(tmp_path / "reference", OTHERS)
    section = compute(run, ["fid"], reference, extractors)
    expected = frechet_by_square_root(features_of(network, IMAGES), features_of(network, OTHERS))
    assert section["fid"] == pytest.approx(expected, rel=1e-3) and expected > 0.05
    entry = section["metrics"]["fid"]
    assert entry["images"] == 12 and entry["reference"]["images"] == 15
    assert entry["settings"]["features"] == FEATURES and entry["notes"] == []
    assert differences(run) == []


def test_fid_against_statistics_is_that_against_their_images(tmp_path, network, extractors):
    run, features = save_run(tmp_path / "run", IMAGES), features_of(network, OTHERS)
    np.savez(tmp_path / "reference.npz", mu=features.mean(0), sigma=np.cov(features, rowvar=False))
    section = compute(run, ["fid"], tmp_path / "reference.npz", extractors)
    expected = frechet_by_square_root(features_of(network, IMAGES), features)
    assert section["fid"] == pytest.approx(expected, rel=1e-3)
    assert section["metrics"]["fid"]["reference"]["kind"] == "statistics"
    with pytest.raises(UserError, match="needs the reference's images"):
        compute(run, ["kid"], tmp_path / "reference.npz", extractors)
    np.savez(tmp_path / "other.npz", mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(UserError, match=r"statistics have 3 features, the extractor makes 6"):
        compute(run, ["fid"], tmp_path / "other.npz", extractors)
    np.savez(tmp_path / "torn.npz", mu=np.zeros(3), sigma=np.eye(2))
    with pytest.raises(UserError, match="do not fit"):
        compute(run, ["fid"], tmp_path / "torn.npz", extractors)


def test_fid_of_far_sets_is_the_distance_of_their_means():
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (5000, 3))
    assert frechet(x, x + np.array([3.0, 0, 4])) == pytest.approx(25)
    assert frechet(x, 2 * x) == pytest.approx(3, rel=0.1)  # (2 - 1)² for each of three variances of 1


def test_fid_says_when_there_are_too_few_images_for_a_covariance_of_full_rank(tmp_path, extractors):
    run = save_run(tmp_path / "run", IMAGES[:6])
    section = compute(run, ["fid"], save_folder(tmp_path / "reference", OTHERS), extractors)
    (note,) = section["metrics"]["fid"]["notes"]
    assert note.startswith("6 images for 6 features: the covariance lacks full rank")
    single = save_run(tmp_path / "single", IMAGES[:1])
    with pytest.raises(UserError, match="FID needs 2 images and 2 of the reference, here are 1 and 15"):
        compute(single, ["fid"], tmp_path / "reference", extractors)
    np.savez(tmp_path / "reference.npz", mu=np.zeros(6), sigma=np.eye(6))
    with pytest.raises(UserError, match="here are 1 and its statistics; make more images"):
        compute(single, ["fid"], tmp_path / "reference.npz", extractors)


def test_kid_is_the_unbiased_discrepancy_of_the_features(tmp_path, network, extractors):
    run = save_run(tmp_path / "run", IMAGES)
    reference = save_folder(tmp_path / "reference", OTHERS[:12])
    settings = Settings(kid_subset_size=12, kid_subsets=3)
    section = compute(run, ["kid"], reference, extractors, settings=settings)
    expected = squared_discrepancy(features_of(network, IMAGES), features_of(network, OTHERS[:12]))
    assert section["kid"] == pytest.approx(expected, rel=1e-4) and expected > 1e-3
    assert section["metrics"]["kid"]["standard_deviation"] == pytest.approx(0, abs=1e-9)  # of all images each


def test_kid_is_the_mean_over_subsets_with_their_spread_and_the_same_for_a_seed():
    random = np.random.default_rng(0)
    x, y = random.normal(0, 1, (40, 4)), random.normal(0.5, 1, (50, 4))
    mean, deviation = kernel(x, y, subsets=200, size=20, seed=1)
    assert (mean, deviation) == kernel(x, y, subsets=200, size=20, seed=1)
    assert mean != kernel(x, y, subsets=200, size=20, seed=2)[0]
    # Unbiased: the mean over many subsets is near the value of the whole sets.
    whole = squared_discrepancy(x, y[:40])
    assert mean == pytest.approx(whole, rel=0.5) and 0 < deviation < 5 * mean
    drawn = [squared_discrepancy(random.permutation(x)[:20], random.permutation(y)[:20]) for _ in range(60)]
    assert deviation == pytest.approx(np.std(drawn), rel=0.5)


def test_kid_takes_subsets_of_half_the_smaller_set_and_a_thousand_at_most():
    assert subset_size(5000, 3000, None) == 1000
    assert subset_size(300, 5000, None) == 150
    assert subset_size(4, 4, None) == 2
    assert subset_size(300, 200, 200) == 200
    with pytest.raises(UserError, match="give at most 200"):
        subset_size(300, 200, 201)
    with pytest.raises(UserError, match="KID needs 4 images and 4 of the reference, here are 3 and 9"):
        subset_size(3, 9, None)
