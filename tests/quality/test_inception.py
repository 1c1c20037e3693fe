"""FID's network against values of torch-fidelity, and the inputs of two programs by hand."""

import re

import numpy as np
import pytest
import torch

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.quality.extractor import sha256_of
from mlenergy.diffusion.quality.inception import Inception, prepared
from mlenergy.diffusion.quality.inception_features import FeatureExtractor

IMAGE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 64, 48), dtype=np.uint8))


def weights():
    """Seeded tensors by the names of the published file, of a size that activations keep theirs."""
    generator, found = torch.Generator().manual_seed(0), {}
    for name, tensor in sorted(Inception().state_dict().items()):
        drawn = torch.rand(tensor.shape, generator=generator)
        if name.endswith(("running_var", "bn.weight")):
            found[name] = drawn / 2 + 0.75
        elif name.endswith(("running_mean", "bias")):
            found[name] = drawn / 5 - 0.1
        elif name.endswith("num_batches_tracked"):
            found[name] = torch.tensor(0)
        else:
            found[name] = (2 * drawn - 1) * (6 / tensor[0].numel()) ** 0.5
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "pt_inception-2015-12-05.pth"
    torch.save(weights(), path)
    return path


def test_features_are_those_of_torch_fidelity(file):
    extractor = FeatureExtractor(str(file), "torch-fidelity", torch.device("cpu"))
    (features,) = extractor.features([IMAGE.permute(1, 2, 0).numpy()])
    assert features.shape == (2048,)
    # What torch-fidelity 0.4.0 makes of this file and image, at every 256th feature, and their mean.
    expected = [0.0023372, 2.0809329, 0.1522157, 0.0835214, 0.2092255, 0.0, 4.1244707, 0.2899528]
    assert features[::256] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert features.mean() == pytest.approx(0.7107599, rel=1e-4)
    identity = extractor.identity
    assert identity.sha256 == sha256_of(file) and identity.settings["preprocessing"] == "torch-fidelity"


def test_images_are_resized_as_tensorflow_did_or_between_centres_of_pixels():
    values = IMAGE.numpy().astype(np.float64)

    def at(row, column):
        low = [min(int(row), 63), min(int(column), 47)]
        high = [min(low[0] + 1, 63), min(low[1] + 1, 47)]
        a, b = row - low[0], column - low[1]
        top = values[:, low[0], low[1]] * (1 - b) + values[:, low[0], high[1]] * b
        bottom = values[:, high[0], low[1]] * (1 - b) + values[:, high[0], high[1]] * b
        return top * (1 - a) + bottom * a

    tensorflow, between = prepared(IMAGE, "torch-fidelity"), prepared(IMAGE, "pytorch-fid")
    assert tensorflow.shape == between.shape == (3, 299, 299)
    for row, column in ((0, 0), (7, 250), (150, 149), (298, 298)):
        corner = at(row * 64 / 299, column * 48 / 299)
        assert tensorflow[:, row, column].numpy() == pytest.approx((corner - 128) / 128, abs=1e-4)
        centre = at(max((row + 0.5) * 64 / 299 - 0.5, 0), max((column + 0.5) * 48 / 299 - 0.5, 0))
        assert between[:, row, column].numpy() == pytest.approx(2 * centre / 255 - 1, abs=1e-4)


def test_files_of_other_networks_are_refused(tmp_path, file):
    def load(path):
        FeatureExtractor(str(path), "pytorch-fid", torch.device("cpu"))

    renamed = {name.replace("Mixed_7c", "Mixed_8"): tensor for name, tensor in weights().items()}
    torch.save(renamed, tmp_path / "renamed.pth")
    with pytest.raises(UserError, match=r"not the weights of FID's Inception v3 \(Mixed_7c.* do not fit\)"):
        load(tmp_path / "renamed.pth")
    (tmp_path / "torn.pth").write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=re.escape("torn.pth: cannot be read as weights (")):
        load(tmp_path / "torn.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds a list; give a state dict, or a network as TorchScript"):
        load(tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"--inception .*none.pth: there is no such file"):
        load(tmp_path / "none.pth")
