"""What was measured reaches results.json whole, with the units it says, and as its schema promises."""

import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import fields, replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
from result_folders import result as result_of
from result_samples import (
    ENVIRONMENT,
    NO_GPU,
    cpu_measurement,
    cpu_plan,
    gpu_measurement,
    gpu_reading,
    make_plan,
    prompt_set,
    rank_memory,
)

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.measure.samples import Measurement
from mlenergy.diffusion.results.build import RunRecord, build_result

ISSUE_KEYS = [
    *("date", "model_id", "batch_size", "completed", "generation_time", "throughput_images_per_sec"),
    *("avg_time_per_image", "total_energy_j", "energy_per_image_j", "peak_memory_gb", "prompts"),
    *("generation_results", "configuration", "energy_measurement"),
]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def build(plan, measurement, images=None):
    prompts = prompt_set(plan)
    count = sum(iteration.images for iteration in measurement.iterations)
    return build_result(RunRecord(plan, measurement, prompts, ENVIRONMENT), images or [None] * count, NOW)


@pytest.fixture
def gpu_result():
    return build(make_plan(), gpu_measurement(), [f"image_outputs/{i}.png" for i in range(16)])


@pytest.fixture
def cpu_result():
    return build(cpu_plan(), cpu_measurement())


@pytest.fixture(scope="module")
def schema():
    text = (resources.files("mlenergy.diffusion") / "schema" / "results-v1.json").read_text(encoding="utf-8")
    return json.loads(text)


def test_outliers_of_the_windows_are_listed():
    measured = gpu_measurement()
    odd = replace(measured.iterations[2], duration_s=90.0)
    slow = replace(measured, iterations=(*measured.iterations[:2], odd, measured.iterations[3]))
    (found,) = build(make_plan(), slow)["statistics"]["outliers"]
    assert (found["index"], found["value"]) == (2, 90.0)
    assert build(make_plan(), measured)["statistics"]["outliers"] == []


def as_read_back(result):
    return json.loads(json.dumps(result, allow_nan=False))


def test_the_figures_on_gpus(gpu_result):
    assert [key for key in ISSUE_KEYS if key not in gpu_result] == []
    assert gpu_result["date"] == "2026-01-02T03:04:05+00:00"
    assert gpu_result["completed"] == 16
    assert gpu_result["generation_time"] == pytest.approx(33.2)
    assert gpu_result["throughput_images_per_sec"] == pytest.approx(16 / 33.2)
    assert gpu_result["avg_time_per_image"] == pytest.approx(33.2 / 16)
    assert gpu_result["total_energy_j"] == pytest.approx(36_600)
    assert gpu_result["energy_per_image_j"] == pytest.approx(36_600 / 16)
    assert gpu_result["peak_memory_gb"] == pytest.approx(34.5)
    assert gpu_result["first_call_s"] == 31.5


def test_energy_per_gpu_node_and_stage(gpu_result):
    energy = gpu_result["energy_measurement"]
    assert energy["energy_source"] == "nvml_counter"
    assert energy["reason"] is None
    assert [(g["uuid"], g["node"], g["energy_j"]) for g in energy["gpus"]] == [
        ("GPU-a", "node-a", 20_600),
        ("GPU-b", "node-b", 16_000),
    ]
    assert energy["gpus"][0]["sampled_energy_j"] == pytest.approx(0.99 * 20_600)
    assert (energy["gpus"][1]["idle_power_w"], energy["gpus"][1]["power_limit_w"]) == (76.0, 700.0)
    assert [(n["node"], n["gpu_energy_j"], n["cpu_package_j"]) for n in energy["nodes"]] == [
        ("node-a", 20_600, 40),
        ("node-b", 16_000, 80),
    ]
    assert (energy["cpu_package_j"], energy["dram_j"]) == (120, 12), "beside the total, never in it"
    assert energy["energy_above_idle_j"] == 32_000
    assert energy["mean_power_w"] == pytest.approx(36_600 / 33.2)
    assert energy["stages"][0] == {
        "stage": "denoise",
        "energy_j": 7600.0,
        "per_gpu_j": {"GPU-a": 4300.0, "GPU-b": 3300.0},
        "aggregated": False,
        "energy_per_step_j": 7600 / 28,
    }


def test_unknown_is_null_with_a_reason_on_a_cpu(cpu_result):
    assert cpu_result["total_energy_j"] is cpu_result["energy_per_image_j"] is None
    assert cpu_result["energy_measurement"]["energy_source"] == "none"
    assert "on the CPU" in cpu_result["energy_measurement"]["reason"]
    assert cpu_result["peak_memory_gb"] is cpu_result["memory"]["peak_memory_bytes"] is None
    assert cpu_result["memory"]["reason"] == "the CPU's allocator keeps no peak"
    assert cpu_result["memory"]["host_rss_peak_bytes"] == 5_000_000_001
    assert cpu_result["statistics"]["energy_j"] is None
    assert all(image["energy_j"] is None for image in cpu_result["generation_results"])


def test_what_the_plan_warned_of_is_in_the_result_too(monkeypatch):
    monkeypatch.setattr("mlenergy.diffusion.config.dtype.emulates_float16", lambda: True)
    codes = [one["code"] for one in build(cpu_plan(dtype="float16"), cpu_measurement())["warnings"]]
    assert codes.count("slow_dtype") == 1
    assert "slow_dtype" not in [
        one["code"] for one in build(cpu_plan(dtype="float32"), cpu_measurement())["warnings"]
    ]


def test_energy_of_some_windows_is_no_total():
    measured = gpu_measurement()
    lost = replace(NO_GPU, reason="GPU-b was lost")
    iterations = (*measured.iterations[:3], replace(measured.iterations[3], energy=lost))
    result = build(make_plan(), replace(measured, iterations=iterations))
    assert result["total_energy_j"] is None
    assert result["energy_measurement"]["reason"] == "GPU-b was lost"
    assert result["iterations"][0]["energy_j"] == 9000.0, "what was measured is kept"


def test_one_sampled_window_marks_the_whole_as_sampled():
    measured = gpu_measurement()
    sampled = replace(gpu_reading(1.0, 1.0), source="sampled_power", sample_period_s=0.02)
    iterations = (*measured.iterations[:3], replace(measured.iterations[3], energy=sampled))
    energy = build(make_plan(), replace(measured, iterations=iterations))["energy_measurement"]
    assert (energy["energy_source"], energy["sample_period_s"]) == ("sampled_power", 0.02)


def test_the_peak_is_the_largest_and_never_over_some_of_the_ranks():
    measured = gpu_measurement()
    memory = build(make_plan(), measured)["memory"]
    assert (memory["peak_memory_bytes"], memory["peak_rank"], memory["peak_stage"]) == (
        34_500_000_000,
        1,
        "denoise",
    )
    assert memory["parameter_bytes"] == 24_168_000_000
    assert [rank["rank"] for rank in memory["ranks"]] == [0, 1]
    partly = replace(measured, memory=(rank_memory(0, 1_000), rank_memory(1, None)))
    assert build(make_plan(), partly)["memory"]["peak_memory_bytes"] is None


def test_images_prompts_and_windows_follow_each_other_in_order(gpu_result):
    prompts = prompt_set(make_plan())
    images = gpu_result["generation_results"]
    assert gpu_result["prompts"] == [r.prompt for r in prompts.requests] == [i["prompt"] for i in images]
    assert [i["index"] for i in images] == list(range(16))
    assert [i["iteration"] for i in images] == [k for k in range(4) for _ in range(4)]
    assert [i["image"] for i in images] == [f"image_outputs/{i}.png" for i in range(16)]
    assert [i["seed"] for i in images] == list(range(42, 58))
    assert sum(i["time_s"] for i in images) == pytest.approx(gpu_result["generation_time"])
    assert sum(i["energy_j"] for i in images) == pytest.approx(gpu_result["total_energy_j"])


def test_statistics_and_stages(gpu_result):
    duration = gpu_result["statistics"]["duration_s"]
    assert (duration["count"], duration["minimum"], duration["maximum"]) == (4, 8.0, 8.6)
    assert duration["mean"] == pytest.approx(8.3)
    assert duration["ci95_high"] - duration["mean"] == pytest.approx(duration["ci95_half_width"])
    assert gpu_result["statistics"]["time_per_image_s"]["mean"] == pytest.approx(8.3 / 4)
    assert gpu_result["stages"]["denoise_s"]["mean"] == pytest.approx(0.8 * 8.3)
    assert gpu_result["stages"]["denoise_step_s"]["count"] == 12
    assert gpu_result["iterations"][1]["stages"]["denoise_step_s"] == pytest.approx([2.46, 2.05, 2.05])


def test_stages_that_one_window_lacks_are_null_with_a_reason():
    measured = cpu_measurement()
    iterations = (measured.iterations[0], replace(measured.iterations[1], stages=None))
    stages = build(cpu_plan(), replace(measured, iterations=iterations))["stages"]
    assert stages["denoise_s"] is None
    assert stages["reason"]


def test_configuration_holds_every_field_of_the_plan():
    plan = make_plan(negative_prompt="blurry", prompt_prefix="oil,")
    configuration = build(plan, gpu_measurement())["configuration"]
    # "knobs" is the key of the optimizations in version 1 of the schema.
    always = {f.name for f in fields(Plan)} - {"spec", "optimizations", "preset"} | {"knobs"}
    assert always <= set(configuration)
    assert configuration["parallel"]["world_size"] == 2
    assert (configuration["negative_prompt"], configuration["prompt_prefix"]) == ("blurry", "oil,")
    assert configuration["model"]["pipeline_class"] == "FluxPipeline"


def test_a_new_field_of_a_measurement_has_to_be_given_a_place():
    """test_build_rules.py finds each figure again; the timeline has a file of its own."""
    placed = {"first_call_s", "warmup_s", "iterations", "memory", "warnings", "idle_power_w", "stage_energy"}
    placed |= {"stage_energy_reason", "counter_period_s", "timeline", "sampling", "power_limit_w"}
    assert {f.name for f in fields(Measurement)} == placed


def test_results_follow_their_schema(gpu_result, cpu_result, schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    for result in (gpu_result, cpu_result):
        jsonschema.validate(as_read_back(result), schema, jsonschema.Draft202012Validator)
    assert [key for key in ISSUE_KEYS if key not in schema["required"]] == []


@pytest.mark.parametrize("key", ISSUE_KEYS)
def test_the_schema_refuses_a_result_without_a_key(gpu_result, schema, key):
    del gpu_result[key]
    with pytest.raises(jsonschema.ValidationError, match=key):
        jsonschema.validate(as_read_back(gpu_result), schema)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("completed",), 0),
        (("generation_time",), "3 s"),
        (("total_energy_j",), -1.0),
        (("schema_version",), 2),
        (("unheard_of",), 1),
        (("iterations", 0, "unheard_of"), 1),
        (("generation_results", 0, "image"), 7),
        (("energy_measurement", "energy_source"), "guess"),
    ],
)
def test_the_schema_refuses_what_it_does_not_promise(gpu_result, schema, path, value):
    result = as_read_back(gpu_result)
    place = result
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(result, schema)


def test_numbers_that_do_not_match_are_an_error_not_a_result():
    plan, measured = make_plan(), gpu_measurement()
    prompts = prompt_set(plan)
    with pytest.raises(ValueError, match="16 images were made of 16 requests, with 3 file names"):
        build_result(RunRecord(plan, measured, prompts, ENVIRONMENT), [None] * 3)
    with pytest.raises(ValueError, match="with 17 file names"):
        build_result(RunRecord(plan, measured, prompts, ENVIRONMENT), [None] * 17)
    few = replace(prompts, requests=prompts.requests[:2])
    with pytest.raises(ValueError, match="of 2 requests"):
        build_result(RunRecord(plan, measured, few, ENVIRONMENT), [None] * 16)
    with pytest.raises(ValueError, match="no image was made"):
        build_result(RunRecord(plan, replace(measured, iterations=()), prompts, ENVIRONMENT), [])


def test_results_and_prompts_do_not_import_torch_or_other_heavy_things():
    modules = (
        "results.build results.atomic results.read results.save results.lock results.paths results.media"
    )
    modules += " results.media prompts.sampling"
    code = "import sys, importlib\n"
    code += f"for m in '{modules}'.split(): importlib.import_module('mlenergy.diffusion.' + m)\n"
    code += "assert not {'torch', 'numpy', 'datasets', 'PIL', 'pyarrow', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("in_set", "codes"), [(15, ["repeated_prompts"]), (16, []), (200, [])])
def test_fewer_prompts_than_images_are_a_warning(in_set, codes):
    plan, measurement = make_plan(), gpu_measurement()
    prompts = prompt_set(plan)
    prompts = replace(prompts, provenance={**prompts.provenance, "prompts_in_set": in_set})
    record = RunRecord(plan, measurement, prompts, ENVIRONMENT)
    result = build_result(record, [None] * record.completed, NOW)
    found = [one for one in result["warnings"] if one["code"] == "repeated_prompts"]
    assert record.completed == 16
    assert [one["code"] for one in found] == codes
    assert all("16 images were made of 15 prompts" in one["message"] for one in found)


def test_a_result_of_videos_is_valid_and_its_schema_that_of_images_with_other_names():
    folder = resources.files("mlenergy.diffusion") / "schema"
    schema_of_videos = json.loads((folder / "results-v2.json").read_text(encoding="utf-8"))
    spec = importlib.util.spec_from_file_location(
        "schema_v2", Path(__file__).parents[2] / "scripts/schema_v2.py"
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert schema_of_videos == script.schema(), "scripts/schema_v2.py writes it"
    validator = jsonschema.Draft202012Validator(schema_of_videos)
    on_gpus, on_cpu = (result_of(video=True, **one) for one in ({"joules": (9.0, 9.0)}, {"on_cpu": True}))
    for found in (on_gpus, on_cpu):
        validator.validate(as_read_back(found))
    for key in ("unit", "num_frames", "throughput_frames_per_sec", "avg_time_per_video"):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({name: value for name, value in as_read_back(on_cpu).items() if name != key})
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(as_read_back(result_of()))


@pytest.mark.parametrize("version", [1, 2])
def test_every_key_is_explained(version):
    """A key that is in the schema but not in the documentation is a number that nobody can quote."""
    text = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    schema_text = (resources.files("mlenergy.diffusion") / "schema" / f"results-v{version}.json").read_text(
        "utf-8"
    )

    def keys(node):
        if isinstance(node, dict):
            for name, value in node.items():
                yield from value if name == "properties" else ()
                yield from keys(value)
        elif isinstance(node, list):
            for value in node:
                yield from keys(value)

    missing = {key for key in keys(json.loads(schema_text)) if not re.search(rf"`[^`]*\b{key}\b[^`]*`", text)}
    assert missing == set()
