"""The study `latent`, on VAEs that the tests make, against the same figures computed by other means."""

import json
import math
from pathlib import Path

import numpy as np
import own_models
import pytest
from PIL import Image

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.studies import latent
from mlenergy.diffusion.studies.command import main
from mlenergy.diffusion.studies.content import Gap, Pictures
from mlenergy.diffusion.studies.latent import LatentOptions, report
from mlenergy.diffusion.studies.outcome import Outcome

RANDOM = np.random.default_rng(11)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A pipeline with weights of its own, of two blocks: a latent cell is of two by two pixels."""
    changes = {"vae": {**own_models.TWO_BLOCKS, "sample_size": 32}, "unet": {"sample_size": 16}}
    return str(own_models.save_pipeline(tmp_path_factory.mktemp("model"), "tiny/sd1.5", changes))


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size in (("b.jpg", (33, 25)), ("a.png", (24, 40))):
        pixels = RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def run(monkeypatch, tmp_path, *words):
    monkeypatch.chdir(tmp_path)
    code = main(["run", "latent", "--folder", "l", *words])
    return code, json.loads((tmp_path / "l" / "report.json").read_text())


def test_the_figures_are_those_of_the_vae_itself(monkeypatch, tmp_path, model, images):
    code, made = run(monkeypatch, tmp_path, "--models", model, "--images", str(images))
    assert code == 0
    (size,) = made["tables"]["sizes"]["rows"]
    assert (size["image"], size["latent"]) == ("32x32x3", "16x16x4")
    assert size["count_ratio"] == 32 * 32 * 3 / (16 * 16 * 4) and size["bits_per_pixel"] == 8 * 4 / 4

    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(Path(model) / "vae")
    latents, psnrs = [], []
    for name in ("a.png", "b.jpg"):
        with Image.open(images / name) as opened:
            # 24 rows x 40 columns as they are; 33 x 25 cut to even sides in the middle.
            pixels = np.asarray(opened.convert("RGB"))[: -1 if name[0] == "b" else None]
        pixels = pixels[:, :24] if name[0] == "b" else pixels
        with torch.no_grad():
            colours = torch.tensor(pixels / 127.5 - 1, dtype=torch.float32).permute(2, 0, 1)[None]
            latents.append(vae.encode(colours).latent_dist.mean)
            back = vae.decode(latents[-1]).sample[0].permute(1, 2, 0)
        rounded = np.rint(np.clip((back.numpy() + 1) * 127.5, 0, 255))
        psnrs.append(10 * math.log10(255**2 / np.mean((rounded - pixels) ** 2)))
    (loss,) = made["tables"]["losses"]["rows"]
    assert loss["images"] == 2
    assert loss["psnr_db"] == pytest.approx(np.mean(psnrs), abs=1e-3)
    flat = torch.cat([one[0].flatten(1) for one in latents], dim=1).numpy()
    entropies = []
    for row in flat:
        levels = np.rint((row - row.min()) / (row.max() - row.min()) * 255)
        shares = np.unique(levels, return_counts=True)[1] / len(row)
        entropies.append(-np.sum(shares * np.log2(shares)))
    assert loss["entropy_bits_per_value"] == pytest.approx(np.mean(entropies), abs=1e-3)
    assert loss["entropy_bits_per_pixel"] == pytest.approx(np.mean(entropies), abs=1e-3)  # 4 a cell of 2 x 2
    assert 24 < loss["png_bits_per_pixel"] < 30  # noise does not compress
    assert not (tmp_path / "l" / "results").exists()  # no run was needed
    originals = sorted((tmp_path / "l" / "reconstructions").glob("*-image.png"))
    assert len(originals) == 2


def test_a_second_call_measures_nothing_until_the_images_change(monkeypatch, tmp_path, model, images):
    words = ("--models", model, "--images", str(images))
    _, first = run(monkeypatch, tmp_path, *words)
    with monkeypatch.context() as patch:
        patch.setattr(latent, "_measured", lambda *_: pytest.fail("measured again"))
        assert run(monkeypatch, tmp_path, *words)[1]["tables"] == first["tables"]
    (images / "a.png").unlink()
    _, later = run(monkeypatch, tmp_path, *words)
    assert later["tables"]["losses"]["rows"][0]["images"] == 1


def test_random_weights_tell_sizes_alone(monkeypatch, tmp_path):
    code, made = run(monkeypatch, tmp_path, "--models", "tiny/sdxl", "black-forest-labs/FLUX.1-dev",
                     "--weights", "random")  # fmt: skip
    assert code == 0
    ratios = {row["model"]: row["count_ratio"] for row in made["tables"]["sizes"]["rows"]}
    assert ratios == {"tiny/sdxl": 48, "black-forest-labs/FLUX.1-dev": 12}
    for row in made["tables"]["losses"]["rows"]:
        assert row["psnr_db"] is None and "random weights" in row["reasons"]["psnr_db"]


def test_an_image_that_cannot_be_measured_is_a_reason(monkeypatch, tmp_path, model, images):
    (images / "c.png").write_bytes(b"no image")
    _, made = run(monkeypatch, tmp_path, "--models", model, "--images", str(images))
    (row,) = made["tables"]["losses"]["rows"]
    assert row["ssim"] is None and "c.png cannot be measured" in row["reasons"]["ssim"]
    Image.fromarray(np.zeros((8, 40, 3), np.uint8)).save(images / "c.png")
    _, made = run(monkeypatch, tmp_path, "--models", model, "--images", str(images))
    assert "11 pixels or more" in made["tables"]["losses"]["rows"][0]["reasons"]["ssim"]
    (images / "c.png").unlink()
    _, made = run(monkeypatch, tmp_path, "--models", model, "--images", str(images))
    assert made["tables"]["losses"]["rows"][0]["ssim"] is not None


def test_a_folder_without_images_is_refused(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for folder, line in ((tmp_path, "holds no image"), (tmp_path / "absent", "is no folder")):
        with pytest.raises(UserError, match=line):
            main(["run", "latent", "--models", "tiny/sdxl", "--images", str(folder), "--folder", "x"])


def test_a_report_before_measuring_says_so(tmp_path):
    made = report(LatentOptions(models=("black-forest-labs/FLUX.1-dev",)), Outcome(tmp_path))
    row = made.tables[1].rows[0]
    assert isinstance(row["ssim"], Gap) and "not measured yet" in row["ssim"].reason
    assert not any(isinstance(part, Pictures) for part in made.parts)


@pytest.mark.full
def test_a_model_encodes_the_images_that_it_made(monkeypatch, tmp_path, model):
    code, made = run(monkeypatch, tmp_path, "--models", model, "--count", "2", "--set", "device=cpu",
                     "--set", "inference_steps=2")  # fmt: skip
    assert code == 0
    assert made["tables"]["losses"]["rows"][0]["images"] == 2
