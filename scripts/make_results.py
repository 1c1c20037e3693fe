"""Makes a folder of many realistic results, and measures reading them: docs/measurements/index.md.

    python scripts/make_results.py FOLDER --count 1000       # results only
    python scripts/make_results.py FOLDER --measure 1000 10000 100000

--measure makes the results one after another in FOLDER, and prints a row of the table for each number: the
first index, a refresh after 100 new results, a report's reading by pyarrow, polars and `mlenergy show`, and
the largest resident memory of these processes. FOLDER must not exist; what was made is removed at the end.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.measure.samples import (
    GpuEnergy,
    Iteration,
    Measurement,
    MeasurementWarning,
    NodeEnergy,
    RankMemory,
    StageTimes,
    WindowEnergy,
)
from mlenergy.diffusion.models.listed import LISTED
from mlenergy.diffusion.prompts.sampling import PromptOptions, sample_requests
from mlenergy.diffusion.results.build import RunRecord, build_result
from mlenergy.diffusion.results.paths import RunPaths

BATCHES = (1, 2, 4)
TEMPLATES = 360  # different set-ups but for their seeds
DEVICES = ("NVIDIA H200", "NVIDIA B200", "NVIDIA A100-SXM4-80GB")
NEW = 100
# Numbers that occur nowhere else, in the place of those that differ between the results of one template.
_SEED, _TIME = "7770001777", "777000222777"
_IMAGES = '"image": "'
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def write(base: Path, count: int, first: int = 0) -> None:
    """Write results as a run does; every tenth names images, which are there without bytes."""
    for number in range(first, first + count):
        name, text, images = _template(number % TEMPLATES)
        seed = f"{number}"
        folder = base / f"sweep-{number // 1000:03d}" / name.replace(_SEED, seed)
        folder.mkdir(parents=True)
        if number % 10 == 0:
            (folder / "image_outputs").mkdir()
            for image in images:
                (folder / image).touch()
        else:
            text = text.replace(_IMAGES, '"image": null, "was": "')
        total_s = 40 * random.Random(number).uniform(0.5, 1.5)
        (folder / "results.json").write_text(text.replace(_SEED, seed).replace(_TIME, repr(total_s)))
        (folder / "status.json").write_text('{"state": "complete"}')


@functools.cache
def _template(number: int) -> tuple[str, str, list[str]]:
    """The folder's name, the text of results.json and its images, with marks for the seed and the time."""
    draw = random.Random(number)
    plan = _plan(number, draw)
    images = plan.batch_size * plan.benchmark_iters
    prompts = sample_requests(PromptOptions.from_plan(plan), images, plan.seed, plan.batch_size)
    record = RunRecord(plan, _measurement(plan, draw), prompts, _environment(number))
    names = [f"image_outputs/{k:04d}.png" for k in range(images)]
    content = build_result(record, names, _BEGIN + timedelta(seconds=number))
    content |= {"effects_pending": False, "effects_failed": [], "generation_time": int(_TIME)}
    return RunPaths.of(plan).folder.name, json.dumps(content, indent=2), names


def _plan(number: int, draw: random.Random) -> Plan:
    spec = LISTED[number // 3 % len(LISTED)]
    return Plan(
        spec=spec,
        weights_from=spec.model_id,
        revision=None,
        engine="xdit",
        device="cuda",
        device_name=DEVICES[number // 7 % len(DEVICES)],
        parallel=Parallelism(ulysses=2 ** (number // 11 % 3)),
        dtype=spec.default_dtype,
        batch_size=BATCHES[number // 5 % len(BATCHES)],
        height_px=spec.default_height_px,
        width_px=spec.default_width_px,
        steps=spec.default_steps,
        guidance_scale=spec.default_guidance_scale,
        negative_prompt=None,
        max_sequence_length=spec.default_max_sequence_length,
        seed=int(_SEED),
        dataset="bundled",
        prompt_column="prompt",
        prompt_prefix="",
        warmup_iters=1,
        benchmark_iters=4,
        save_images=True,
        base_dir="run",
    )


def _measurement(plan: Plan, draw: random.Random) -> Measurement:
    ranks = plan.parallel.world_size
    seconds = plan.batch_size * draw.uniform(1, 8) / ranks
    windows = [seconds * draw.gauss(1, 0.01) for _ in range(plan.benchmark_iters)]
    warned = draw.random() < 0.1
    return Measurement(
        first_call_s=3 * seconds,
        warmup_s=(3 * seconds,),
        iterations=tuple(
            Iteration(k, plan.batch_size, s, _energy(s, ranks), _stages(s, plan.steps), None)
            for k, s in enumerate(windows)
        ),
        memory=tuple(_memory(rank) for rank in range(ranks)),
        counter_period_s={f"GPU-{rank}": 0.1 for rank in range(ranks)},
        warnings=(MeasurementWarning("throttle", "held down for heat in 1 of 4 windows"),) if warned else (),
    )


def _energy(seconds: float, ranks: int) -> WindowEnergy:
    gpus = tuple(
        GpuEnergy("node-a", f"GPU-{rank}", "NVIDIA H200", 600 * seconds, sampled_energy_j=599 * seconds)
        for rank in range(ranks)
    )
    nodes = (NodeEnergy("node-a", 600 * seconds * ranks, cpu_package_j=200 * seconds, dram_j=20 * seconds),)
    return WindowEnergy("nvml_counter", None, gpus, nodes)


def _stages(seconds: float, steps: int) -> StageTimes:
    return StageTimes(
        text_encode_s=0.05 * seconds,
        denoise_s=0.85 * seconds,
        denoise_step_s=tuple(0.85 * seconds / steps for _ in range(steps)),
        vae_decode_s=0.08 * seconds,
        other_s=0.02 * seconds,
        postprocess_s=0.01,
    )


def _memory(rank: int) -> RankMemory:
    return RankMemory(
        rank=rank,
        peak_allocated_bytes=34_000_000_000 + rank,
        peak_reserved_bytes=36_000_000_000,
        driver_used_bytes=37_000_000_000,
        host_rss_peak_bytes=5_000_000_000,
        parameter_bytes={"transformer": 24_000_000_000, "vae": 168_000_000},
        parameter_count={"transformer": 12_000_000_000, "vae": 84_000_000},
        peak_stage="denoise",
        reason=None,
    )


def _environment(number: int) -> dict[str, Any]:
    names = (
        "torch",
        "xfuser",
        "diffusers",
        "transformers",
        "accelerate",
        "zeus",
        "numpy",
        "pyarrow",
        "triton",
    )
    return {
        "source": {"version": "0.1.0", "commit": "0" * 40, "dirty": False, "reason": None},
        "versions": dict.fromkeys(names, f"1.{number // 50000}.0"),
        "torch_cuda": "13.0",
        "python": "3.12.9",
        "nodes": [{"hostname": f"node-{number % 16}", "cpu": "Example", "driver": "580.65", "gpus": []}],
    }


_REFRESH = (
    "from mlenergy.diffusion.cli import main; import sys; "
    "sys.argv = ['mlenergy', 'index', sys.argv[1]]; main()"
)
_SHOW = (
    "from mlenergy.diffusion.cli import main; import sys; "
    "sys.argv = ['mlenergy', 'show', sys.argv[1], '--limit', '20']; main()"
)
# The columns of a report: all but the settings and versions as JSON.
_ARROW = (
    "import sys, pyarrow.parquet as pq, pyarrow.compute as pc; f = sys.argv[1] + '/index.parquet'; "
    "t = pq.read_table(f, columns=[n for n in pq.read_schema(f).names if not n.endswith('_json')]); "
    "t = t.filter(pc.equal(t['state'], 'complete')); "
    "t.group_by(['setup_digest', 'platform_digest']).aggregate([('time_per_image_mean_s', 'mean')])"
)
_POLARS = (
    "import sys, polars as pl; t = pl.read_parquet(sys.argv[1] + '/index.parquet'); "
    "t = t.filter(pl.col('state') == 'complete').group_by('setup_digest', 'platform_digest'); "
    "t.agg(pl.col('time_per_image_mean_s').mean())"
)


@dataclass(frozen=True)
class Timed:
    """Cost of a new Python process."""

    wall_s: float
    cpu_s: float
    memory_mb: float  # largest resident size

    def __str__(self) -> str:
        return f"{self.wall_s:.1f} ({self.cpu_s:.1f})"


def timed(program: str, folder: Path) -> Timed:
    """Run a program on a folder in a new process."""
    peak = "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss"
    measured = f"{program}\nimport resource; print({peak}, file=sys.stderr)"
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", measured, str(folder)], check=True, capture_output=True, text=True
    )
    wall_s, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timed(wall_s, cpu_s, int(done.stderr.split()[-1]) / 1000)


def measure(base: Path, counts: list[int]) -> None:
    """Print a row for each number of results."""
    made = 0
    headings = ("results", "first index", "refresh, 100 new", "pyarrow", "polars", "`mlenergy show`", "table")
    print(f"| {' | '.join((*headings, 'memory: index, show'))} |\n|{'---:|' * 8}", flush=True)
    for count in counts:
        write(base, count - NEW - made, made)
        (base / "index.parquet").unlink(missing_ok=True)
        time.sleep(2.1)  # younger files are read again
        first = timed(_REFRESH, base)
        write(base, NEW, count - NEW)
        made = count
        again = timed(_REFRESH, base)
        read = [timed(program, base) for program in (_ARROW, _POLARS, _SHOW)]
        size_mb = (base / "index.parquet").stat().st_size / 1e6
        memory = f"{max(first.memory_mb, again.memory_mb):.0f} MB, {read[-1].memory_mb:.0f} MB"
        times = " | ".join(map(str, (first, again, *read)))
        print(f"| {count:,} | {times} | {size_mb:.1f} MB | {memory} |", flush=True)


def main() -> int:
    """Make results, or measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int)
    parser.add_argument("--measure", type=int, nargs="+")
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    if args.count is not None:
        write(args.folder, args.count)
    if args.measure is not None:
        try:
            measure(args.folder, sorted(args.measure))
        finally:
            shutil.rmtree(args.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
