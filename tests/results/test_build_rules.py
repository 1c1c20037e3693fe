"""Any measurement becomes a result whose sums, means and shares are worked out anew here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from result_samples import ENVIRONMENT, make_plan, prompt_set

from mlenergy.diffusion.measure.samples import (
    GpuEnergy,
    Iteration,
    Measurement,
    NodeEnergy,
    RankMemory,
    Sampling,
    StageTimes,
    WindowEnergy,
    sum_or_none,
)
from mlenergy.diffusion.prompts.sampling import PromptSet
from mlenergy.diffusion.results.build import RunRecord, build_result

PLAN = make_plan()
REQUESTS = prompt_set(replace(PLAN, benchmark_iters=8)).requests
FIGURE = st.floats(0.001, 1e5)
MAYBE = st.none() | FIGURE
STAGES = ("text_encode_s", "denoise_s", "vae_decode_s", "other_s", "postprocess_s")


@st.composite
def windows(draw, index, uuids):
    """One iteration; its energy may be unknown."""
    images = draw(st.integers(1, 4))
    gpus = tuple(
        GpuEnergy(f"node-{i % 2}", uuid, f"card {i}", draw(FIGURE), sampled_energy_j=draw(MAYBE))
        for i, uuid in enumerate(uuids)
    )
    nodes = tuple(NodeEnergy(f"node-{i}", draw(MAYBE), draw(MAYBE), draw(MAYBE)) for i in range(2))
    energy = WindowEnergy("nvml_counter", None, gpus, nodes, marks=(f"mark {index}",))
    if draw(st.integers(0, 9)) == 0:
        energy = WindowEnergy("none", f"lost in window {index}", (), nodes)
    steps = tuple(draw(st.lists(FIGURE, min_size=2, max_size=3)))
    text_s, denoise_s, decode_s, other_s, post_s = (draw(FIGURE) for _ in STAGES)
    stages = StageTimes(text_s, denoise_s, steps, decode_s, other_s, post_s)
    return Iteration(index, images, draw(FIGURE), energy, stages, draw(MAYBE))


@st.composite
def measurements(draw):
    uuids = [f"GPU-{i}" for i in range(draw(st.integers(1, 3)))]
    iterations = tuple(draw(windows(index, uuids)) for index in range(draw(st.integers(1, 5))))
    by_uuid = st.fixed_dictionaries({}, optional=dict.fromkeys(uuids, FIGURE))
    ranks = tuple(
        RankMemory(
            *(rank, draw(st.none() | st.integers(1, 10**11)), draw(st.integers(1, 10**11))),
            *(draw(st.none() | st.integers(1, 10**11)), draw(st.integers(1, 10**11))),
            *({"vae": draw(st.integers(0, 10**9)), "text": draw(st.integers(0, 10**9))}, {}),
            *("denoise", f"reason {rank}"),
        )
        for rank in range(draw(st.integers(1, 3)))
    )
    warmup_s = tuple(draw(st.lists(FIGURE, max_size=3)))
    first_s = warmup_s[0] if warmup_s else None
    options = {name: draw(by_uuid) for name in ("idle_power_w", "counter_period_s", "power_limit_w")}
    return Measurement(first_s, warmup_s, iterations, ranks, **options)


def built(measurement):
    count = sum(iteration.images for iteration in measurement.iterations)
    prompts = PromptSet(REQUESTS, (), {})
    return build_result(RunRecord(PLAN, measurement, prompts, ENVIRONMENT), [None] * count)


def near(value):
    return None if value is None else pytest.approx(value)


def the_same_summary(found, values):
    if None in values:
        assert found is None
        return
    assert found["mean"] == near(np.mean(values)) and found["median"] == near(np.median(values))
    assert (found["count"], found["minimum"]) == (len(values), near(min(values)))
    assert found["maximum"] == near(max(values))


@given(measurements())
@settings(max_examples=25)
def test_totals_and_rates(measurement):
    result, windows = built(measurement), measurement.iterations
    seconds, images = sum(w.duration_s for w in windows), sum(w.images for w in windows)
    joules = [sum(g.energy_j for g in w.energy.gpus) if w.energy.source != "none" else None for w in windows]
    total_j = None if None in joules else sum(joules)
    assert result["completed"] == images
    assert result["generation_time"] == near(seconds)
    assert result["throughput_images_per_sec"] == near(images / seconds)
    assert result["avg_time_per_image"] == near(seconds / images)
    assert result["total_energy_j"] == near(total_j)
    assert result["energy_per_image_j"] == near(None if total_j is None else total_j / images)
    assert (result["first_call_s"], result["warmup_s"]) == (measurement.first_call_s, [*measurement.warmup_s])
    statistics = result["statistics"]
    the_same_summary(statistics["duration_s"], [w.duration_s for w in windows])
    the_same_summary(statistics["time_per_image_s"], [w.duration_s / w.images for w in windows])
    the_same_summary(statistics["energy_j"], joules)
    per_image = [None if j is None else j / w.images for j, w in zip(joules, windows, strict=True)]
    the_same_summary(statistics["energy_per_image_j"], per_image)
    of_image = [index for index, w in enumerate(windows) for _ in range(w.images)]
    for image, index, request in zip(result["generation_results"], of_image, REQUESTS, strict=False):
        assert (image["iteration"], image["seed"], image["prompt"]) == (index, request.seed, request.prompt)
        assert image["time_s"] == near(windows[index].duration_s / windows[index].images)
        assert image["energy_j"] == near(per_image[index])
    assert len(result["generation_results"]) == len(result["prompts"]) == images


@given(measurements())
@settings(max_examples=25)
def test_energy_of_gpus_nodes_and_windows(measurement):
    result, windows = built(measurement), measurement.iterations
    energy, readings = result["energy_measurement"], [w.energy for w in measurement.iterations]
    lost = [reading.reason for reading in readings if reading.source == "none"]
    assert energy["energy_source"] == ("none" if lost else "nvml_counter")
    assert energy["reason"] == (lost[0] if lost else None)
    assert energy["total_energy_j"] == result["total_energy_j"]
    assert energy["energy_per_image_j"] == result["energy_per_image_j"]
    above = sum_or_none(w.energy_above_idle_j for w in windows)
    assert energy["energy_above_idle_j"] == near(above)
    images, seconds = result["completed"], result["generation_time"]
    assert energy["energy_above_idle_per_image_j"] == near(None if above is None else above / images)
    total_j = result["total_energy_j"]
    assert energy["mean_power_w"] == near(None if total_j is None else total_j / seconds)
    for key in ("cpu_package_j", "dram_j"):
        parts = [getattr(node, key) for reading in readings for node in reading.nodes]
        assert energy[key] == near(None if None in parts else sum(parts))
    for gpu in energy["gpus"]:
        own = [g for reading in readings for g in reading.gpus if g.uuid == gpu["uuid"]]
        assert (gpu["node"], gpu["name"]) == (own[0].node, own[0].name)
        assert gpu["energy_j"] == near(sum(g.energy_j for g in own))
        sampled = [g.sampled_energy_j for g in own]
        assert gpu["sampled_energy_j"] == near(None if None in sampled else sum(sampled))
        for key in ("idle_power_w", "power_limit_w", "counter_period_s"):
            assert gpu[key] == getattr(measurement, key).get(gpu["uuid"])
    assert {gpu["uuid"] for gpu in energy["gpus"]} == {g.uuid for r in readings for g in r.gpus}
    for node in energy["nodes"]:
        own = [n for reading in readings for n in reading.nodes if n.node == node["node"]]
        for key in ("gpu_energy_j", "cpu_package_j", "dram_j"):
            parts = [getattr(n, key) for n in own]
            assert node[key] == near(None if None in parts else sum(parts))
    for found, window in zip(result["iterations"], windows, strict=True):
        assert (found["index"], found["images"], found["duration_s"]) == (
            *(window.index, window.images),
            window.duration_s,
        )
        assert found["energy_per_gpu_j"] == {g.uuid: g.energy_j for g in window.energy.gpus}
        assert found["sampled_energy_per_gpu_j"] == {g.uuid: g.sampled_energy_j for g in window.energy.gpus}
        assert found["energy_above_idle_j"] == window.energy_above_idle_j
        assert found["marks"] == [*window.energy.marks]


@given(measurements())
@settings(max_examples=25)
def test_stages_and_memory(measurement):
    result, windows, ranks = built(measurement), measurement.iterations, measurement.memory
    for name in STAGES:
        the_same_summary(result["stages"][name], [getattr(w.stages, name) for w in windows])
    steps = [step for w in windows for step in w.stages.denoise_step_s]
    the_same_summary(result["stages"]["denoise_step_s"], steps)
    for found, window in zip(result["iterations"], windows, strict=True):
        assert {name: found["stages"][name] for name in STAGES} == {
            name: getattr(window.stages, name) for name in STAGES
        }
        assert found["stages"]["denoise_step_s"] == [*window.stages.denoise_step_s]
    memory, peaks = result["memory"], [rank.peak_allocated_bytes for rank in ranks]
    peak = None if None in peaks else max(peaks)
    assert memory["peak_memory_bytes"] == peak
    assert result["peak_memory_gb"] == near(None if peak is None else peak / 1e9)
    assert memory["peak_rank"] == (None if peak is None else peaks.index(peak))
    assert memory["reason"] == (None if peak is not None else "reason 0")
    for key in ("peak_reserved_bytes", "driver_used_bytes", "host_rss_peak_bytes"):
        parts = [getattr(rank, key) for rank in ranks]
        assert memory[key] == (None if None in parts else max(parts))
    assert memory["parameter_bytes"] == max(sum(rank.parameter_bytes.values()) for rank in ranks)


def test_every_figure_of_a_measurement_reaches_the_result():
    """Each number of the samples is one that no other has, and is found again."""
    fresh = iter(range(1_000_003, 9_000_000, 1009))
    n = lambda: float(next(fresh))  # noqa: E731
    gpus = (GpuEnergy("a", "GPU-a", "card", n(), sampled_energy_j=n()),)
    energy = WindowEnergy("nvml_counter", None, gpus, (NodeEnergy("a", n(), n(), n()),))
    stages = StageTimes(n(), n(), (n(), n()), n(), n(), n())
    rank = RankMemory(0, *(int(n()) for _ in range(4)), {"vae": int(n())}, {"vae": int(n())}, "denoise")
    rank = replace(rank, stage_peak_bytes={"denoise": int(n())})
    measurement = Measurement(
        n(), (n(), n()), (Iteration(0, 1, n(), energy, stages, n()),), (rank,), idle_power_w={"GPU-a": n()}
    )
    measurement = replace(measurement, counter_period_s={"GPU-a": n()}, power_limit_w={"GPU-a": n()})
    measurement = replace(measurement, sampling=Sampling(n(), n(), n(), n(), int(n())))
    made, there = set(range(1_000_003, int(next(fresh)), 1009)), set()

    def collect(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            for one in value:
                collect(one)
        elif isinstance(value, (int, float)):
            there.add(value)

    collect(built(measurement))
    assert made - there == set()
