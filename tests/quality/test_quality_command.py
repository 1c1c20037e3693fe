"""The verb: what it prints, writes and refuses, and what tables, comparisons and pages show of it."""

import json
from importlib import resources

import jsonschema
import numpy as np
import pytest
from extractors import pictures, save_folder, save_run, small_inception

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.quality.mlperf import beside, sdxl
from mlenergy.diffusion.report.compare_command import main as compare
from mlenergy.diffusion.report.html.rows import row_of
from mlenergy.diffusion.report.quality_command import main
from mlenergy.diffusion.report.show_command import main as show
from mlenergy.diffusion.results.index import read_index, refresh
from mlenergy.diffusion.results.read import load_result, read_result

IMAGES = pictures(8, 0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Runs `a` and `b` and a reference; the current folder."""
    monkeypatch.chdir(tmp_path)
    small_inception(tmp_path / "inception.pt")
    save_run(tmp_path / "runs/a", IMAGES)
    save_run(tmp_path / "runs/b", pictures(8, 3, shift=20))
    save_folder(tmp_path / "reference", pictures(9, 1, shift=30))
    return tmp_path


FID = ["--reference", "reference", "--inception", "inception.pt"]


def test_every_run_is_evaluated_and_its_result_follows_the_schema(folder, capsys):
    assert main(["runs", *FID, "--kid_subsets", "5", "--batch_size", "5"]) == 0
    out, err = capsys.readouterr()
    content = read_result(folder / "runs/a/results.json")
    fid = content["quality"]["fid"]
    assert f"FID            {fid:.4g}, 8 images against 9 of reference; inception.pt (sha256 " in out
    assert "KID " in out and "over 5 subsets" in out and out.startswith("runs/a\n") and "\nruns/b\n" in out
    assert err.splitlines()[:4] == [
        "FID, images: 0 of 8 images",
        "FID, images: 8 of 8 images",
        "FID, reference: 0 of 9 images",
        "FID, reference: 9 of 9 images",
    ]
    assert main(["runs", "--reference", "runs/b"]) == 0  # all runs but the reference itself
    assert "ssim" not in read_result(folder / "runs/b/results.json")["quality"]["metrics"]
    schema = json.loads((resources.files("mlenergy.diffusion") / "schema/results-v1.json").read_text())
    content = read_result(folder / "runs/a/results.json")
    assert set(content["quality"]["metrics"]) == {"fid", "kid", "ssim", "psnr_db"}
    jsonschema.validate(content["quality"], {**schema["properties"]["quality"], "$defs": schema["$defs"]})
    capsys.readouterr()
    assert main(["runs/a", *FID, "--metrics", "fid", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs/a"]["fid"] == fid


def test_a_run_that_is_unfit_does_not_keep_the_others_from_theirs(folder, capsys):
    save_run(folder / "runs/random", IMAGES, weights="random")
    assert main(["runs", *FID, "--metrics", "fid"]) == 2
    out, err = capsys.readouterr()
    assert "runs/a\n" in out and "runs/b\n" in out and "runs/random" not in out
    (line,) = [line for line in err.splitlines() if line.startswith("mlenergy: error: ")]
    assert "runs/random: its model black-forest-labs/FLUX.1-dev has random weights" in line
    with pytest.raises(UserError, match="has random weights"):
        main(["runs/random", *FID])
    with pytest.raises(UserError, match="there is no result in reference"):
        main(["reference", *FID])


def test_an_interrupt_says_that_the_same_command_goes_on(folder, capsys, monkeypatch):
    from mlenergy.diffusion.quality.inception_features import FeatureExtractor

    def interrupted(self, images):
        raise KeyboardInterrupt

    monkeypatch.setattr(FeatureExtractor, "features", interrupted)
    assert main(["runs/a", *FID]) == 130
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        "mlenergy: error: interrupted by SIGINT: "
        "what was computed is kept in runs/a, and the same command goes on"
    )


def test_tables_indexes_and_pages_show_values_but_none_of_random_weights(folder, capsys):
    save_run(folder / "runs/random", IMAGES, weights="random")
    main(["runs", *FID, "--metrics", "fid", "--try_random_weights"])
    assert (
        "random weights these values say nothing of the model, and no table shows them"
        in capsys.readouterr().out
    )
    fid = read_result(folder / "runs/a/results.json")["quality"]["fid"]
    known, unknown = (load_result(folder / f"runs/{name}/results.json").record for name in ("a", "random"))
    assert known.fid == fid and known.fid_reason is None and known.fid_basis.startswith("8 images against ")
    assert (
        unknown.fid is None and unknown.fid_reason.startswith("random weights") and unknown.fid_basis is None
    )
    show(["runs/a", "--columns", "fid,ssim", "--csv"])
    assert f"{fid}," in capsys.readouterr().out
    rows = {row["folder"]: row["fid"] for row in read_index(refresh(folder / "runs").file)}
    assert rows["a"] == fid and rows["random"] is None
    contents = [read_result(folder / f"runs/{name}/results.json") for name in ("a", "random")]
    assert [row_of(content, "x")["quality"] for content in contents] == [f"FID {fid:.4g}", None]


def test_a_comparison_shows_quality_and_says_when_fids_do_not_compare(folder, capsys):
    main(["runs", *FID, "--metrics", "fid"])
    capsys.readouterr()
    fids = [read_result(folder / f"runs/{name}/results.json")["quality"]["fid"] for name in "ab"]
    compare(["runs/a", "runs/b"])
    assert f"quality        FID: A {fids[0]:.4g}, B {fids[1]:.4g}\n" in capsys.readouterr().out
    save_folder(folder / "other", pictures(9, 7))
    main(["runs/b", "--reference", "other", *FID[2:], "--metrics", "fid"])
    capsys.readouterr()
    compare(["runs/a", "runs/b"])
    assert (
        "of other references, networks or numbers of images, so they do not compare"
        in capsys.readouterr().out
    )


def test_bounds_of_mlperf_stand_beside_a_run_of_its_set_up_as_no_submission():
    inception = {"weights": "x", "settings": {"preprocessing": "pytorch-fid"}}
    metrics = {
        "fid": {"images": 5000, "reference": {"kind": "statistics"}, "extractor": inception},
        "clip_score": {"images": 5000, "extractor": {"weights": "openai/clip-vit-base-patch32"}},
    }
    section = {"fid": 23.5, "clip_score": 31.9, "metrics": metrics}
    configuration = {
        **sdxl()["configuration"],
        "negative_prompt": sdxl()["negative_prompt"],
        "knobs": {"scheduler": "own"},
    }
    assert beside(section, configuration) == [
        ("MLPerf", "fid 23.50000 lies within 23.01085758 to 23.95007626, not a submission"),
        ("MLPerf", "clip_score 31.90000 lies above 31.68631873 to 31.81331801, not a submission"),
    ]
    for name, value in (("steps", 25), ("width_px", 512), ("guidance_scale", 7.5), ("model_id", "tiny/sdxl")):
        assert beside(section, {**configuration, name: value}) == []
    few = {"fid": {**metrics["fid"], "images": 8, "reference": {"kind": "folder"}}}
    *_, (_, line) = beside({"fid": 20.0, "metrics": few}, {**configuration, "negative_prompt": None})
    assert line == (
        "nor comparable with its bounds: 8 images, not the 5,000 of its prompts; another negative prompt; "
        "FID against images, not its statistics of COCO 2014 (val2014.npz)"
    )


def test_the_set_up_of_mlperf_has_the_names_that_results_have(folder):
    configuration = read_result(folder / "runs/a/results.json")["configuration"]
    assert set(sdxl()["configuration"]) <= set(configuration) and "negative_prompt" in configuration
    assert np.isfinite([bound for bounds in sdxl()["bounds"].values() for bound in bounds]).all()
