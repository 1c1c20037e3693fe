"""The study `mlperf-wan2.2`: MLPerf Inference's settings of Wan 2.2, by every parallel way; no submission."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from mlenergy.diffusion.config.args import ITERATIONS, PROCESSES
from mlenergy.diffusion.config.parser import option_group
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.prompts.files import read_path
from mlenergy.diffusion.studies.content import Report
from mlenergy.diffusion.studies.mlperf_wan_report import LEAST_QUERIES, MODEL, SETTINGS, report_on
from mlenergy.diffusion.studies.outcome import Outcome
from mlenergy.diffusion.studies.study import Study, StudyOptions, Sweep, Sweeps
from mlenergy.diffusion.studies.vram import is_out_of_gpu_memory

STAND_IN = "tiny/wan2.2"
_QUICK_GPUS, _QUICK_QUERIES = 2, 2
_SIZES = ("height", "width", "num_frames", "fps", "inference_steps")  # a stand-in has its own

SequenceMode = Literal["ulysses", "ring", "cfg"]


@option_group("study")
@dataclass(frozen=True, kw_only=True)
class MlPerfWanOptions(StudyOptions):
    """Wan 2.2 as MLPerf Inference asks for it, one query at a time; not a submission."""

    prompts: Path | None = None
    """File with VBench's prompts, such as its VBench_full_info.json, or a TXT file with one a line. Default:
    bundled prompts with random weights; needed with pretrained ones."""
    prompt_column: str = "prompt_en"
    """Key of a prompt in that file; a TXT file has none."""
    queries: Annotated[int, ITERATIONS] = LEAST_QUERIES
    """Measured queries of each run, one video each. MLPerf asks for 50 or more."""
    gpu_counts: Annotated[tuple[int, ...], PROCESSES] = (1, 2, 4, 8)
    """Numbers of GPUs that share one video. What this machine lacks is a gap."""
    modes: tuple[SequenceMode, ...] = ("cfg", "ulysses", "ring")
    """Parallel modes that may share it; every product of them that makes a number of GPUs is run."""
    stand_in: bool = False
    """Run tiny/wan2.2 at its own size instead, to try the study on a CPU."""


def sweeps(options: MlPerfWanOptions) -> Sweeps:
    """One run for each number of GPUs and way to share a video among them."""
    prompts = _prompts(options)
    work = {
        "workload": "text-to-video",
        "batch_size": 1,
        "benchmark_iters": _queries(options),
        **_work(options),
        **prompts,
    }
    runs = [{**work, **way} for way in _ways(options)]
    if not runs:
        counts, modes = (", ".join(map(str, one)) for one in (options.gpu_counts, options.modes))
        raise UserError(
            f"no product of the modes {modes} makes {counts} GPUs; name other --modes or --gpu_counts"
        )
    saved = not _makes_noise(options)  # for VBench
    yield Sweep("ways", {"common": {"save_images": saved}, "list": runs, "order": "cheapest"})


def check_prompts(options: MlPerfWanOptions, _folder: Path) -> None:
    """Refuse a file with fewer prompts than queries, before a model is loaded.

    Raises:
        UserError: the file cannot be read, or is too short.
    """
    if options.prompts is None:
        return
    count = len(read_path(options.prompts, options.prompt_column).prompts)
    wanted = _queries(options)
    if count < wanted:
        raise UserError(
            f"{options.prompts} has {count} prompts, and each of {wanted} queries takes its own; "
            f"give a longer file, or --queries {count}"
        )


def report(options: MlPerfWanOptions, outcome: Outcome) -> Report:
    """Latencies of every way, and what is not as MLPerf asks for it."""
    return report_on(outcome.cells("ways"), options.set)


def _queries(options: MlPerfWanOptions) -> int:
    return min(options.queries, _QUICK_QUERIES) if options.quick else options.queries


def _prompts(options: MlPerfWanOptions) -> dict[str, Any]:
    if options.prompts is not None:
        column = {"prompt_column": options.prompt_column}
        return {"dataset": str(options.prompts), "prompt_order": "file", **column}
    if not _makes_noise(options):
        raise UserError(
            "mlperf-wan2.2 takes VBench's prompts from your own file: --prompts VBench_full_info.json; with "
            "--weights random or --stand_in, whose videos are noise, it goes without"
        )
    return {"dataset": "bundled-videos"}


def _makes_noise(options: MlPerfWanOptions) -> bool:
    return options.stand_in or options.weights == "random"


def _work(options: MlPerfWanOptions) -> dict[str, Any]:
    if not options.stand_in:
        return {"model_id": MODEL, **SETTINGS}
    own = {name: value for name, value in SETTINGS.items() if name not in _SIZES}
    # Tiny models always have random weights, and refuse to be asked for them.
    return {"model_id": STAND_IN, "weights": None, **own}


def _ways(options: MlPerfWanOptions) -> Iterator[Mapping[str, Any]]:
    """Degrees for each number of GPUs; CFG-parallel runs the two forwards of a step on two groups of GPUs."""
    for count in sorted(set(options.gpu_counts)):
        if options.quick and count > _QUICK_GPUS:
            continue
        products = [
            (cfg, count // cfg // ring, ring)
            for cfg in (1, 2)
            for ring in range(1, count + 1)
            if count % (cfg * ring) == 0
        ]
        allowed = [
            product
            for product in products
            if all(degree == 1 or mode in options.modes for mode, degree in zip(_ORDER, product, strict=True))
        ]
        for cfg, ulysses, ring in allowed[:1] if options.quick else allowed:
            guided = {"use_cfg_parallel": True} if cfg == 2 else {}
            yield {"ulysses_degree": ulysses, "ring_degree": ring, **guided}


_ORDER: tuple[SequenceMode, ...] = ("cfg", "ulysses", "ring")

MLPERF_WAN = Study(
    "mlperf-wan2.2", MlPerfWanOptions, sweeps, report, before=check_prompts, is_expected=is_out_of_gpu_memory
)
