"""The summary says what it cost, how sure that is, why something is unknown, and where everything lies."""

import io
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from result_samples import (
    ENVIRONMENT,
    cpu_measurement,
    cpu_plan,
    gpu_measurement,
    make_plan,
    prompt_set,
)

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.report.run_view import print_effects, print_summary, render_summary
from mlenergy.diffusion.results.build import RunRecord, build_result
from mlenergy.diffusion.results.efficiency import efficiency_section
from mlenergy.diffusion.results.paths import RunPaths


def text_of(plan, measurement, images=None, environment=ENVIRONMENT, stream=None):
    count = sum(iteration.images for iteration in measurement.iterations)
    now = datetime(2026, 1, 2, tzinfo=UTC)
    result = build_result(
        RunRecord(plan, measurement, prompt_set(plan), environment), images or [None] * count, now
    )
    out = io.StringIO() if stream is None else stream
    print_summary(result, RunPaths.of(plan), out)
    return out.getvalue()


def test_two_gpus_on_two_nodes(golden):
    names = [f"image_outputs/{i}.png" for i in range(16)]
    environment = {"nodes": [{"hostname": "node-a"}, {"hostname": "node-b"}]}
    golden("summary_gpus.txt", text_of(make_plan(), gpu_measurement(), names, environment))


def test_the_arithmetic_is_told_where_it_is_known(golden):
    plan, measured = make_plan(weights="random"), gpu_measurement()
    now, work = datetime(2026, 1, 2, tzinfo=UTC), efficiency_section(plan, measured.iterations)
    result = build_result(
        RunRecord(plan, measured, prompt_set(plan), ENVIRONMENT, efficiency=work), [None] * 16, now
    )
    out = io.StringIO()
    print_summary(result, RunPaths.of(plan), out)
    golden("summary_arithmetic.txt", out.getvalue())


def test_a_cpu_says_why_there_is_no_energy(golden):
    golden("summary_cpu.txt", text_of(cpu_plan(), cpu_measurement()))


def test_one_iteration_has_no_spread_and_says_so(golden):
    measured = cpu_measurement()
    one = replace(measured, iterations=measured.iterations[:1], first_call_s=None, warmup_s=())
    plan = cpu_plan(benchmark_iters=1, parallel=Parallelism(), guidance_scale=None)
    golden("summary_one_iteration.txt", text_of(plan, one))


def test_optimizations_say_what_they_did_and_what_is_lossy(golden):
    optimizations = Optimizations(
        "regional", attention="cudnn", quantization="fp8-dynamic", cache="fbcache", cache_threshold=0.1
    )
    plan, now = make_plan(optimizations=optimizations), datetime(2026, 1, 2, tzinfo=UTC)
    result = build_result(RunRecord(plan, gpu_measurement(), prompt_set(plan), ENVIRONMENT), [None] * 16, now)
    kernels = {"aten._scaled_dot_product_cudnn_attention.default": 57}
    compiled = {"graphs": 3, "compile_s": 41.25, "compile_in_windows_s": 0}
    sizes = {"bfloat16": 800_000_000, "float8_e4m3fn": 11_300_000_000}
    weights = {
        "transformer": {"bytes_before": 23_800_000_000, "bytes": 12_100_000_000, "bytes_by_dtype": sizes}
    }
    cache = {"computed_share": 0.4375, "computed_steps_share": 0.42}
    rank = {"attention": {"kernels": kernels}, "compile": compiled, "cache": cache, "weights": weights}
    result["effects"] = [rank, rank]
    result["similarity"] = {
        "reference": "run/exact",
        "psnr_db": {"mean": 28.125, "minimum": 25.5},
        "ssim": {"mean": 0.91, "minimum": 0.875},
    }
    out = io.StringIO()
    print_summary(result, RunPaths.of(plan), out)
    print_effects(result, out)
    golden("summary_optimizations.txt", out.getvalue())


def test_pipefusion_is_marked_approximate_unless_it_is_not():
    def parallelism(**degrees):
        text = text_of(make_plan(parallel=Parallelism(pipefusion=2, **degrees)), gpu_measurement())
        return re.search(r"parallelism +(.*)", text)[1]

    assert parallelism().endswith("PipeFusion 2 = 2 processes, 2 patches, 1 synchronous steps (approximate)")
    assert parallelism(num_pipeline_patch=1).endswith("(exact)")
    assert parallelism(pipefusion_warmup_steps=28).endswith("(exact)")


def test_a_pipe_gets_no_escapes_and_whole_lines():
    text = text_of(
        make_plan("very/long/" * 30), gpu_measurement(), [f"image_outputs/{i}.png" for i in range(16)]
    )
    assert "\x1b" not in text
    assert str(RunPaths.of(make_plan("very/long/" * 30)).results) in text, "a path is never broken over lines"
    assert text.count("\n") == 17


def test_a_terminal_gets_warnings_in_yellow(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    text = text_of(make_plan(), gpu_measurement(), stream=Terminal())
    assert "\x1b[33mthe last third of the iterations is 3.1 % slower" in text


def test_text_from_outside_cannot_act_on_the_terminal():
    spec = replace(make_plan().spec, model_id="/models/\x1b[31m[red]evil\n")
    text = text_of(make_plan(spec=spec), gpu_measurement())
    assert "\x1b" not in text
    assert r"/models/\x1b[31m[red]evil\n" in text


def test_rendering_is_pure():
    result = build_result(
        RunRecord(cpu_plan(), cpu_measurement(), prompt_set(cpu_plan()), ENVIRONMENT), [None] * 4
    )
    before = repr(result)
    render_summary(result, Path("anywhere"))
    assert repr(result) == before


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0123456, "0.01235"), (1.0, "1"), (2.07549, "2.075"), (999.96, "1000"), (36_600, "36,600"),
     (1e-7, "1e-07"), (123_456_789.4, "123,456,789")],
)  # fmt: skip
def test_numbers_keep_four_digits(value, text):
    assert number(value) == text
