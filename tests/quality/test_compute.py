"""Metrics of finished runs: written whole, resumed, never mixed, and refused where they would say nothing."""

import json
import shutil

import numpy as np
import pytest
import torch
from extractors import pictures, save_folder, save_run, small_inception
from PIL import Image
from torchmetrics.functional.image import structural_similarity_index_measure

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.quality import evaluate
from mlenergy.diffusion.quality.evaluate import METRICS, Extractors, Settings
from mlenergy.diffusion.quality.inception_features import FeatureExtractor
from mlenergy.diffusion.quality.reference import psnr_db, ssim
from mlenergy.diffusion.results.quality import STORE, compute, read_reference
from mlenergy.diffusion.results.read import read_result
from mlenergy.diffusion.results.verify import differences

IMAGES, OTHERS = pictures(10, 0), pictures(9, 1, shift=30)
FEW = Settings(batch_size=4)


@pytest.fixture
def extractors(tmp_path):
    small_inception(tmp_path / "inception.pt")
    return Extractors(inception=str(tmp_path / "inception.pt"))


@pytest.fixture
def run(tmp_path):
    return save_run(tmp_path / "run", IMAGES)


@pytest.fixture
def reference(tmp_path):
    return save_folder(tmp_path / "reference", OTHERS)


@pytest.fixture
def seen(monkeypatch):
    """Batches of images that reach the network."""
    batches, features = [], FeatureExtractor.features

    def watched(self, images):
        batches.append(len(images))
        return features(self, images)

    monkeypatch.setattr(FeatureExtractor, "features", watched)
    return batches


def test_a_pair_of_runs_has_the_means_of_psnr_and_ssim(tmp_path, run):
    changed = [np.clip(image.astype(int) + 5, 0, 255).astype(np.uint8) for image in IMAGES]
    changed[3] = IMAGES[3]
    exact = save_run(tmp_path / "exact", changed)
    section = compute(run, (), exact)
    pairs = list(zip(IMAGES, changed, strict=True))
    expected = [ssim(*pair) for pair in pairs]
    assert section["ssim"] == pytest.approx(np.mean(expected))
    assert section["metrics"]["ssim"]["minimum"] == pytest.approx(min(expected))
    one, other = (torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2).double() for x in (IMAGES, changed))
    # torchmetrics averages windows that reach over the edge too; the paper's are whole.
    _, full = structural_similarity_index_measure(one, other, data_range=255.0, return_full_image=True)
    assert section["ssim"] == pytest.approx(float(full[..., 5:-5, 5:-5].mean()), rel=1e-6)
    decibels = [psnr_db(*pair) for pair in pairs if pair[0] is not pair[1]]
    assert section["psnr_db"] == pytest.approx(np.mean(decibels))
    psnr = section["metrics"]["psnr_db"]
    assert psnr["identical"] == 1 and psnr["per_image"][3] is None and psnr["images"] == 10
    assert section["fid"] is None and section["fid_reason"].startswith("not computed")
    assert differences(run) == []


def test_identical_runs_have_no_psnr_and_say_why(tmp_path, run):
    section = compute(run, ["psnr"], save_run(tmp_path / "same", IMAGES))
    assert section["psnr_db"] is None and "identical" in section["psnr_db_reason"]


def test_runs_of_other_prompts_seeds_or_counts_are_no_pairs(tmp_path, run, extractors):
    fewer = save_run(tmp_path / "fewer", IMAGES[:9])
    with pytest.raises(UserError, match=r"cannot be paired with those of .*: it has 9 images, the run 10"):
        compute(run, (), fewer)
    for what, line in (
        ("seed", r"seed 2 is '7', the run's is '43'"),
        ("prompt", "prompt 2 is '7', the run's is"),
    ):
        other = save_run(tmp_path / what, IMAGES, entries={1: {what: 7}})
        with pytest.raises(UserError, match=line):
            compute(run, (), other)
    with pytest.raises(UserError, match="it is the run itself; give another run"):
        compute(run, (), run)
    assert compute(run, ["fid"], fewer, extractors)["fid"] is not None  # two sets need no pairs
    larger = save_run(tmp_path / "larger", pictures(10, 0, (48, 64)))
    with pytest.raises(UserError, match="differ in size; ssim needs images of one size"):
        compute(run, ["ssim"], larger)


def test_an_interrupted_metric_goes_on_where_it_stopped(run, reference, extractors, seen):
    def stop(what, done, of):
        if what == "FID, images" and done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute(run, ["fid"], reference, extractors, settings=FEW, progress=stop)
    assert seen == [4, 4] and "quality" not in read_result(run / "results.json")
    fid = compute(run, ["fid"], reference, extractors, settings=FEW)["fid"]
    assert seen == [4, 4, 2, 4, 4, 1]
    compute(run, ["kid"], reference, extractors, settings=FEW)  # of the same features
    assert len(seen) == 6
    (run / STORE).unlink()
    assert compute(run, ["fid"], reference, extractors)["fid"] == pytest.approx(fid, rel=1e-5)


def test_values_of_other_images_weights_or_inputs_are_never_taken(tmp_path, run, reference, extractors, seen):
    first = compute(run, ["fid"], reference, extractors)
    count = len(seen)
    small_inception(tmp_path / "inception.pt", seed=1)  # the same name
    second = compute(run, ["fid"], reference, extractors)
    assert len(seen) == 2 * count and second["fid"] != first["fid"]
    entries = [section["metrics"]["fid"] for section in (first, second)]
    assert entries[0]["extractor"]["sha256"] != entries[1]["extractor"]["sha256"]
    Image.fromarray(pictures(1, 9)[0]).save(reference / "000.png")
    third = compute(run, ["fid"], reference, extractors)
    assert seen[2 * count :] == [1] and third["fid"] != second["fid"]
    assert third["metrics"]["fid"]["reference"]["sha256"] != entries[0]["reference"]["sha256"]


def test_features_of_a_reference_that_another_run_has_are_taken_from_it(
    tmp_path, run, reference, extractors, seen
):
    compute(run, ["fid"], reference, extractors)
    second = save_run(tmp_path / "second", pictures(6, 5))
    seen.clear()
    of_another = compute(second, ["fid"], reference, extractors, other_runs=[run, second, tmp_path])
    assert seen == [6]
    (second / STORE).unlink()
    assert compute(second, ["fid"], reference, extractors)["fid"] == of_another["fid"]


def test_metrics_stand_beside_each_other_and_a_new_value_replaces_the_old(run, reference, extractors):
    compute(run, ["fid"], reference, extractors)
    before = read_result(run / "results.json")
    section = compute(run, ["kid"], reference, extractors)
    after = read_result(run / "results.json")
    assert after["quality"] == section and set(section["metrics"]) == {"fid", "kid"}
    assert section["metrics"]["fid"] == before["quality"]["metrics"]["fid"]
    names = ("digests", "quality")
    assert {k: v for k, v in after.items() if k not in names} == {
        k: v for k, v in before.items() if k not in names
    }
    assert list(section) == [
        *(key for name in METRICS for key in (name, f"{name}_reason")),
        "of_random_weights",
        "metrics",
    ]


def test_a_run_with_random_weights_is_refused_and_its_values_stay_out_of_sight(
    tmp_path, reference, extractors
):
    random = save_run(tmp_path / "random", IMAGES, weights="random")
    with pytest.raises(
        UserError, match="has random weights, so its images are noise, whose quality says nothing"
    ):
        compute(random, ["fid"], reference, extractors)
    section = compute(random, ["fid"], reference, extractors, try_random_weights=True)
    assert section["fid"] is None and section["fid_reason"].startswith("random weights")
    assert section["of_random_weights"] and section["metrics"]["fid"]["value"] > 0
    with pytest.raises(UserError, match="its weights are random, so its images are noise; give a run with"):
        compute(save_run(tmp_path / "run2", IMAGES), ["ssim"], random)


def test_runs_that_are_unfit_are_refused_in_one_line(tmp_path, run, reference, extractors):
    def refused(folder):
        with pytest.raises(UserError) as found:
            compute(folder, ["fid"], reference, extractors)
        assert "\n" not in str(found.value)
        return str(found.value)

    assert "holds no results.json; name the folder of a finished run" in refused(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    unsaved = shutil.copytree(run, tmp_path / "unsaved")
    content = json.loads((unsaved / "results.json").read_text())
    del content["digests"]
    for entry in content["generation_results"]:
        entry["image"] = None
    (unsaved / "results.json").write_text(json.dumps(content))
    assert "its images were not saved, only its prompts are known" in refused(unsaved)
    changed = shutil.copytree(run, tmp_path / "changed")
    name = json.loads((run / "results.json").read_text())["generation_results"][2]["image"]
    Image.fromarray(IMAGES[0]).save(changed / name)
    assert f"{name} was changed after it was written; its images cannot be trusted" in refused(changed)
    (changed / name).unlink()
    assert "its result is not complete" in refused(changed)


def test_metrics_without_what_they_need_are_refused_in_one_line(run, reference, extractors, monkeypatch):
    for metrics, options, line in (
        ((), {}, "nothing to compute: give --reference with --inception FILE"),
        (["fid"], {"extractors": extractors}, "fid needs --reference"),
        (["fid"], {"reference": reference}, "FID and KID need --inception FILE"),
        (
            ["ssim"],
            {"reference": reference},
            "ssim compares pairs of images: give --reference the folder of a",
        ),
        (["lpips"], {"reference": reference, "extractors": extractors}, "lpips compares pairs of images"),
        (["is"], {}, "--metrics: there is no 'is'; use fid, kid, clip_score, lpips, ssim, psnr_db"),
    ):
        with pytest.raises(UserError, match=line):
            compute(run, metrics, **options)
    with pytest.raises(UserError, match=r"--device cuda:99: .*; give auto, cpu or cuda"):
        compute(run, ["fid"], reference, extractors, settings=Settings(device="cuda:99"))
    monkeypatch.setattr(evaluate, "missing_extra", lambda package, extra: f"needs the package {package}")
    with pytest.raises(UserError, match="FID needs the package torchmetrics"):
        compute(run, ["fid"], reference, extractors)
    monkeypatch.undo()
    with pytest.raises(UserError, match="LPIPS needs --lpips FILE"):
        compute(run, ["lpips"], read_reference(save_run(run.parent / "pair", IMAGES)))
