"""All files of a run: each one's content, and their order."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from result_samples import ENVIRONMENT, cpu_measurement, cpu_plan, prompt_set

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.measure.samples import Timeline
from mlenergy.diffusion.results import save
from mlenergy.diffusion.results.build import RunRecord, build_result
from mlenergy.diffusion.results.lock import result_lock
from mlenergy.diffusion.results.media import latent_names, output_names
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import is_complete, read_result
from mlenergy.diffusion.results.save import pending_effects, save_effects_reason, save_result, save_run
from mlenergy.diffusion.results.verify import differences

LINE = Timeline(["n"], ["GPU-a"], [0.0], [300.0], [50], [1980], [0], [None], 0.25)


@pytest.fixture
def run(tmp_path):
    """Paths, record and pixels of two windows of two images each; six were asked for, the rest in vain."""
    plan = cpu_plan(tmp_path, benchmark_iters=3)
    measurement = replace(cpu_measurement(), timeline=LINE)
    record = RunRecord(plan, measurement, prompt_set(plan), ENVIRONMENT)
    greys = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * 50
    pixels = np.broadcast_to(greys, (4, 8, 8, 3))
    return RunPaths.of(plan), record, [pixels[:2], pixels[2:]]


def saved(run):
    paths, record, pixels = run
    names = output_names(paths, record.measured_requests) if pixels else [None] * record.completed
    save_run(paths, record, pixels, build_result(record, names))
    return json.loads(paths.requests.read_text()), read_result(paths.results)


def test_every_file_holds_its_own(run):
    paths, record, _ = run
    requests, result = saved(run)
    assert [one["prompt"] for one in requests["requests"]] == [r.prompt for r in record.prompts.requests]
    assert [one["seed"] for one in requests["warmup_requests"]] == [
        request.seed for request in record.prompts.warmup_requests
    ]
    assert len(requests["warmup_requests"]) == 2 and requests["provenance"] == record.prompts.provenance
    assert requests["schema_version"] == 1
    for number, image in enumerate(result["generation_results"]):
        with Image.open(paths.folder / image["image"]) as stored:
            assert np.asarray(stored)[0, 0, 0] == 50 * number, "each request has its own image"
    assert len(list(paths.images.iterdir())) == 4
    assert paths.timeline.exists() and is_complete(paths)


def test_without_images_and_timeline_there_are_no_such_files(run):
    paths, record, _ = run
    record = replace(record, measurement=replace(record.measurement, timeline=None))
    saved((paths, record, []))
    assert not paths.images.exists() and not paths.timeline.exists() and is_complete(paths)


def test_the_results_are_the_last_file_to_be_written(run, monkeypatch):
    written = []
    for name in ("save_requests", "save_outputs", "save_timeline", "save_result"):
        own = getattr(save, name)

        def note(*words, own=own, name=name):
            written.append(name)
            return own(*words)

        monkeypatch.setattr(save, name, note)
    saved(run)
    assert written[-1] == "save_result" and len(written) == 4


def test_a_reason_is_noted_in_a_folder_that_is_still_locked_and_in_no_other(run):
    paths, *_ = run
    saved(run)
    before = {**read_result(paths.results), **pending_effects(True)}
    with result_lock(paths.lock):
        save.save_result(paths, before)
        save_effects_reason(paths, "it crashed")
    after = read_result(paths.results)
    assert after.pop("digests") != before.pop("digests")
    assert after == {**before, "effects_reason": "it crashed", "attention_backend_reason": "it crashed"}
    with pytest.raises(UserError, match="no longer exists"):
        save_effects_reason(paths, "too late")
    assert read_result(paths.results)["effects_reason"] == "it crashed"


def test_latents_stand_beside_the_outputs_with_digests(run):
    from safetensors.torch import load_file

    paths, record, pixels = run
    latents = [torch.full((4, 2, 3), k, dtype=torch.bfloat16) for k in range(record.completed)]
    result = build_result(record, output_names(paths, record.measured_requests))
    names = latent_names(paths, record.measured_requests)
    for entry, name in zip(result["generation_results"], names, strict=True):
        entry["latents"] = name
    digests = save_run(paths, record, pixels, result, latents)
    for k, name in enumerate(names):
        assert name.startswith("latent_outputs/") and name in digests["files"]
        stored = load_file(paths.folder / name)["latents"]
        assert stored.dtype == torch.bfloat16 and torch.equal(stored, latents[k])
    save_result(paths, {**result, "digests": digests})
    assert differences(paths.folder) == []
    (paths.folder / names[0]).write_bytes(b"another")
    assert differences(paths.folder) == [f"{names[0]} was changed after it was written"]
    save_run(paths, record, pixels, build_result(record, output_names(paths, record.measured_requests)))
    assert not paths.latents.exists(), "those of an earlier result do not stay"
