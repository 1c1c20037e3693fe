"""Likeness to a baseline: of which images, when it is not known, and that it is computed once."""

import json

import numpy as np
import pytest
from study_cells import measured, refused

from mlenergy.diffusion.studies import likeness
from mlenergy.diffusion.studies.content import Gap, Measured
from mlenergy.diffusion.studies.likeness import likeness_of, measure_likeness

RANDOM = np.random.default_rng(3)
IMAGES = [RANDOM.integers(0, 200, (32, 32, 3), dtype=np.uint8) for _ in range(2)]
SIZE = {"height_px": 32, "width_px": 32}


@pytest.fixture
def base(tmp_path):
    return measured(tmp_path / "base", {}, pixels=IMAGES, **SIZE)


def test_psnr_and_ssim_of_each_cell_against_the_baseline(tmp_path, base):
    moved = measured(tmp_path / "moved", {}, pixels=[IMAGES[0], IMAGES[1] + 10], **SIZE)
    same = measured(tmp_path / "same", {}, pixels=IMAGES, **SIZE)
    assert "not compared yet" in likeness_of(moved, base, tmp_path)["ssim"].reason
    measure_likeness([moved, same], base, tmp_path)
    found = likeness_of(moved, base, tmp_path)
    assert found["psnr_db"].value == pytest.approx(20 * np.log10(25.5))  # of the one that differs
    assert 0.9 < found["ssim"].value < 1 and found["identical_images"] == "1 of 2"
    found = likeness_of(same, base, tmp_path)
    assert found["psnr_db"] == Gap("identical in every byte")
    assert found["ssim"] == Measured(1.0) and found["identical_images"] == "2 of 2"


def test_what_was_compared_is_not_compared_again_until_it_is_measured_again(tmp_path, base, monkeypatch):
    cell = measured(tmp_path / "cell", {}, pixels=IMAGES, **SIZE)
    measure_likeness([cell], base, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(likeness, "similarity", lambda *_: pytest.fail("compared again"))
        measure_likeness([cell], base, tmp_path)
    later = {"date": "2026-02-02T00:00:00+00:00"}
    again = measured(tmp_path / "cell", {}, pixels=[IMAGES[0] + 1, IMAGES[1]], of_content=later, **SIZE)
    assert "not compared yet" in likeness_of(again, base, tmp_path)["ssim"].reason
    measure_likeness([again], base, tmp_path)
    assert likeness_of(again, base, tmp_path)["identical_images"] == "1 of 2"


def test_a_missing_image_is_a_reason_and_is_looked_for_again(tmp_path, base):
    cell = measured(tmp_path / "cell", {}, pixels=IMAGES, **SIZE)
    file = tmp_path / "cell" / "image_outputs" / "1.png"
    content = file.read_bytes()
    file.unlink()
    measure_likeness([cell], base, tmp_path)
    assert "cannot be compared" in likeness_of(cell, base, tmp_path)["ssim"].reason
    file.write_bytes(content)
    measure_likeness([cell], base, tmp_path)
    assert likeness_of(cell, base, tmp_path)["identical_images"] == "2 of 2"


def changed(**configuration):
    def change(content):
        content["configuration"] |= configuration
        return content

    return change


def another_seed(content):
    content["generation_results"][1]["seed"] += 1
    return content


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(model_id="other/model"), "other/model is another model than black-forest-labs/FLUX.1-dev"),
        (changed(height_px=64), "its image size is 32x64, the baseline's is 32x32"),
        (lambda c: {**c, "weights": "random"}, "its kind of weights is random, the baseline's is pretrained"),
        (another_seed, "its seeds are not the baseline's"),
        (lambda c: {**c, "generation_results": c["generation_results"][:1]}, "it has 1 images"),
    ],
)
def test_images_of_other_work_are_not_compared(tmp_path, base, change, reason):
    cell = measured(tmp_path / "cell", {}, pixels=IMAGES, **SIZE)
    file = tmp_path / "cell" / "results.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    vars(cell.runs[0]).pop("content", None)
    measure_likeness([cell], base, tmp_path)
    found = likeness_of(cell, base, tmp_path)
    assert reason in found["ssim"].reason and found["psnr_db"] == found["ssim"]


def test_unsaved_images_refusals_and_the_baseline_itself(tmp_path, base):
    unsaved = measured(tmp_path / "unsaved", {}, **SIZE)
    assert "not saved" in likeness_of(unsaved, base, tmp_path)["ssim"].reason
    assert likeness_of(refused({}, "no GPU"), base, tmp_path)["ssim"] == Gap("no GPU")
    assert likeness_of(base, base, tmp_path)["ssim"] == Gap("it is the baseline itself")
    assert "no GPU" in likeness_of(base, refused({}, "no GPU"), tmp_path)["ssim"].reason
