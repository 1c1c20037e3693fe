"""PSNR and SSIM against their definitions, and references that do not fit."""

import json

import numpy as np
import pytest

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.prompts.sampling import Request
from mlenergy.diffusion.quality.reference import Reference, find_reference, psnr_db, similarity, ssim
from mlenergy.diffusion.results.read import read_result

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 200, (24, 32, 3), dtype=np.uint8)


def test_psnr_of_a_known_error():
    assert psnr_db(IMAGE, IMAGE) is None
    assert psnr_db(IMAGE, IMAGE + 1) == pytest.approx(20 * np.log10(255))
    assert psnr_db(IMAGE, IMAGE + 10) == pytest.approx(20 * np.log10(25.5))


def test_ssim_is_its_definition_window_by_window():
    other = np.clip(IMAGE.astype(int) + RANDOM.integers(-30, 30, IMAGE.shape), 0, 255).astype(np.uint8)
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for channel in range(3):
        for row in range(24 - 10):
            for column in range(32 - 10):
                x = IMAGE[row : row + 11, column : column + 11, channel].astype(float)
                y = other[row : row + 11, column : column + 11, channel].astype(float)
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                cov = (window * (x - mx) * (y - my)).sum()
                top = (2 * mx * my + 6.5025) * (2 * cov + 58.5225)
                values.append(top / ((mx**2 + my**2 + 6.5025) * (vx + vy + 58.5225)))
    assert ssim(IMAGE, other) == pytest.approx(np.mean(values), abs=1e-6)
    assert ssim(IMAGE, IMAGE) == pytest.approx(1)
    assert ssim(IMAGE, 255 - IMAGE) < 0


@pytest.fixture
def reference(tmp_path):
    """A finished run of two images, as far as comparing looks at it."""
    from PIL import Image

    (tmp_path / "image_outputs").mkdir()
    entries = []
    for index in range(2):
        name = f"image_outputs/{index}.png"
        Image.fromarray(IMAGE + index).save(tmp_path / name)
        entries.append({"prompt": f"prompt {index}", "seed": 42 + index, "image": name})
    head = {"schema_version": 1, "completed": 2, "generation_time": 1.0, "prompts": [], "weights": "random"}
    configuration = {"model_id": "tiny/flux", "width_px": 32, "height_px": 24}
    (tmp_path / "results.json").write_text(
        json.dumps(head | {"configuration": configuration, "generation_results": entries})
    )
    return tmp_path


class Plan:
    width_px, height_px, save_images = 32, 24, True
    weights_kind, makes_video = "random", False

    class spec:
        model_id = "tiny/flux"


REQUESTS = [Request(index, f"prompt {index}", 42 + index, None) for index in range(2)]


def test_a_reference_is_found_and_compared_image_by_image(reference):
    found = find_reference(reference, read_result(reference / "results.json"), Plan, REQUESTS)
    result = similarity(found, np.stack([IMAGE, IMAGE + 3]))
    assert result["identical"] == 1 and result["images"][0]["psnr_db"] is None
    assert result["images"][1]["psnr_db"] == pytest.approx(20 * np.log10(255 / 2))
    assert result["psnr_db"]["minimum"] == result["psnr_db"]["mean"] == result["images"][1]["psnr_db"]
    assert result["ssim"]["mean"] < 1
    same = similarity(Reference(found.folder, found.images), np.stack([IMAGE, IMAGE + 1]))
    assert same["psnr_db"] is None and same["identical"] == 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda r: r["generation_results"][1].update(seed=7), "seed 1 is 7, this run's is 43"),
        (lambda r: r["generation_results"][0].update(prompt="else"), "prompt 0 is 'else'"),
        (lambda r: r["generation_results"][0].update(image=None), "image 0 was not saved"),
        (lambda r: r["generation_results"].pop(), "it has 1 images, this run makes 2"),
        (lambda r: r["configuration"].update(width_px=64), "its image size is 64x24"),
        (lambda r: r["configuration"].update(model_id="tiny/sd3"), "its model is tiny/sd3"),
        (lambda r: r.update(weights="pretrained"), "its kind of weights is pretrained, this run's is random"),
        (lambda r: r.update(effects_failed=["cache fbcache skipped nothing"]), "is not complete"),
        (lambda r: r.update(effects_pending=True), "is not complete"),
        (lambda r: r.pop("configuration"), "no results.json of this program"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(reference, change, complaint):
    file = reference / "results.json"
    result = json.loads(file.read_text())
    change(result)
    file.write_text(json.dumps(result))
    with pytest.raises(UserError) as error:
        find_reference(reference, read_result(reference / "results.json"), Plan, REQUESTS)
    assert complaint in str(error.value) and "\n" not in str(error.value)


def test_no_folder_and_no_images_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no results\.json of this program that can be read"):
        find_reference(tmp_path, read_result(tmp_path / "results.json"), Plan, REQUESTS)

    class Unsaved(Plan):
        save_images = False

    with pytest.raises(UserError, match="leave --no_save_images out"):
        find_reference(tmp_path, None, Unsaved, REQUESTS)


def test_means_and_minima_are_over_the_images(reference):
    """One image is off by one grey, the other by ten."""
    files = tuple(sorted((reference / "image_outputs").iterdir()))
    pixels = np.stack([IMAGE + 1, IMAGE + 1 + 10])
    found = similarity(Reference(reference, files), pixels)
    decibels = [20 * np.log10(255), 20 * np.log10(25.5)]
    assert found["psnr_db"] == {
        "mean": pytest.approx(np.mean(decibels)),
        "minimum": pytest.approx(decibels[1]),
    }
    ssims = [image["ssim"] for image in found["images"]]
    assert found["ssim"] == {"mean": pytest.approx(np.mean(ssims)), "minimum": min(ssims)}
    assert found["identical"] == 0
