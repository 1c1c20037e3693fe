"""Our generate against a bare diffusers pipeline of the same random model with the same levers, in turns.

    python scripts/bench_vs_bare.py [--engine diffusers] [--starts 3] [--pairs 4] [--json FILE]
    python scripts/bench_vs_bare.py --model_id black-forest-labs/FLUX.1-dev --side_px 1024 --steps 28
    python scripts/bench_vs_bare.py --use_torch_compile --fuse_qkv --vae_channels_last    # on both sides

Each side is a process of its own with the same seeded weights, so that nothing of ours can reach the
bare one: that builds the pipeline, sets its levers and calls it as the documentation of diffusers says
(bare_pipeline.py). Ours is one measured window of the benchmark, with its hooks and barriers. Levers are
options of the benchmark; one that a bare pipeline does not have is refused. The sides take turns, in an order
drawn anew for every pair; while one runs, the other sleeps. Two processes of the same program differ by a
percent or two for as long as they live (where their memory came to lie), which no number of pairs shows: so
both are started anew --starts times. Printed are the ratios, ours over bare: geometric mean and median with
95 % intervals, of the starts or, where there is one, of its pairs; the largest difference between the two
sides' images; and the work of one generation of each, operator by operator.

Exit code 1: the interval of the mean lies above 1, the two sides did different work, something that was
to be compiled was not, or (in float32) the images differ by more than rounding.

The default fits a CPU: PixArt-Sigma's transformer and VAE at full size, its text encoder cut to two layers.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bare_pipeline
from bench_overhead import ratio
from vs_bare_sides import Side

from mlenergy.diffusion.errors import UserError

PIXART = "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"
TEXT_LAYERS = 2
# Of the pixel range, in float32. Half precision has no such bar: two choices of kernels may round apart.
SAME_IMAGES = 1e-5


def main(words: Sequence[str] | None = None) -> int:
    """Run the pairs and print the report; 1 where ours is slower beyond noise, or the sides are no pair."""
    try:
        options = options_of(words)
        plan_of(options)
    except UserError as error:
        print(f"bench_vs_bare: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        model = options.model_id if options.whole_text_encoder else _with_short_text(options.model_id, folder)
        argv = _command_line(options, model, folder)
        try:
            starts = [_start(argv, options.pairs) for _ in range(options.starts)]
        except UserError as error:
            print(f"bench_vs_bare: {error}", file=sys.stderr)
            return 2
    report = report_of(options, starts)
    print(json.dumps(report, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    return 0 if report["not_slower_beyond_noise"] and not report["faults"] else 1


@dataclass(frozen=True)
class Start:
    """The figures of one process of each side.

    pairs_s: seconds of a window of (bare, ours).
    difference: the largest between the two sides' images, of the pixel range.
    work: side -> its operators in one generation.
    graphs: side -> how many it compiled.
    """

    pairs_s: list[tuple[float, float]]
    difference: float
    work: dict[str, Any]
    graphs: dict[str, int]


def _start(argv: list[str], pairs: int) -> Start:
    """Start both sides, the one before the other by chance, compare them and end them."""
    sides: dict[str, Side] = {}
    try:
        for name in random.sample(("bare", "ours"), 2):
            sides[name] = Side(name, argv)
        work = {name: side.ask("work") for name, side in sides.items()}
        difference = _difference(sides)
        pairs_s = [_pair(sides) for _ in range(pairs)]
        graphs = {name: side.ask("graphs") for name, side in sides.items()}
    finally:
        for side in sides.values():
            side.end()
    return Start(pairs_s, difference, work, graphs)


def _difference(sides: dict[str, Side]) -> float:
    """Of the second images of each, so that both are warm and have compiled what they compile."""
    for side in sides.values():
        side.ask("images")
    bare_side, our_side = (sides[name].ask("images") for name in ("bare", "ours"))
    return float(abs(bare_side - our_side).max())


def _pair(sides: dict[str, Side]) -> tuple[float, float]:
    """Seconds of (bare, ours), in an order drawn anew: neither always runs first."""
    names = list(sides)
    random.shuffle(names)
    seconds = {name: float(sides[name].ask("window")) for name in names}
    return seconds["bare"], seconds["ours"]


def report_of(options: argparse.Namespace, starts: list[Start]) -> dict[str, Any]:
    """All figures, and `faults`: what makes the two sides no pair."""
    from mlenergy.diffusion.environment.record import node_record

    ratios = [[ours / bare for bare, ours in start.pairs_s] for start in starts]
    found = ratio([statistics.geometric_mean(one) for one in ratios] if len(starts) > 1 else ratios[0])
    wrong = [faults(options, start.difference, start.work, start.graphs) for start in starts]
    node = node_record()
    return {
        **{key: value for key, value in vars(options).items() if key != "json"},
        "bare_s": statistics.median(bare for start in starts for bare, _ in start.pairs_s),
        "ours_s": statistics.median(ours for start in starts for _, ours in start.pairs_s),
        "pairs_s": [start.pairs_s for start in starts],
        "ratio": found,
        "not_slower_beyond_noise": found["geometric_mean_ci95"][0] <= 1.0,
        "images_largest_difference": max(start.difference for start in starts),
        "work": starts[0].work,
        "compiled_graphs": starts[0].graphs,
        "faults": list(dict.fromkeys(fault for faults_of_one in wrong for fault in faults_of_one)),
        "cpu": node["cpu"],
        "cpu_cores": node["cpu_cores"],
        "gpus": [gpu["name"] for gpu in node["gpus"]],
        "load_average": os.getloadavg()[0],
    }


def faults(
    options: argparse.Namespace, difference: float, work: dict[str, Any], graphs: dict[str, int]
) -> list[str]:
    """Reasons why the ratio compares two different things."""
    found = [
        f"{what}: {work['bare'][what]} on the bare side, {work['ours'][what]} on ours"
        for what in work["bare"]
        if work["bare"][what] != work["ours"][what]
    ]
    if {"--use_torch_compile", "--compile_vae"} & set(options.levers):
        found += [f"nothing was compiled on the side {name}" for name, count in graphs.items() if not count]
    if options.dtype == "float32" and difference > SAME_IMAGES:
        found.append(f"images differ by {difference:.2g}, more than {SAME_IMAGES:g}")
    return found


def plan_of(options: argparse.Namespace, device: tuple[Any, str] | None = None) -> Any:
    """The plan of both sides; device: the type and name of one to plan for, where it is not this machine's.

    Raises:
        UserError: an option cannot work, or the bare side does not have it.
    """
    from mlenergy.diffusion.config.args import parse_args
    from mlenergy.diffusion.config.resolve import make_plan
    from mlenergy.diffusion.environment.device import detect_device
    from mlenergy.diffusion.models.resolve import resolve_model

    args = parse_args(_command_line(options, options.model_id, "."), "bench_vs_bare")
    plan = make_plan(args, resolve_model(options.model_id), 1, *(device or detect_device("auto")))
    lacking = bare_pipeline.refused(plan.optimizations)
    if lacking:
        raise UserError(f"{' '.join(lacking)}: a bare pipeline does not have it; leave it out")
    return plan


def _command_line(options: argparse.Namespace, model: str, folder: str) -> list[str]:
    size = ("--workload.height", str(options.side_px), "--workload.width", str(options.side_px))
    dtype = ("--workload.dtype", options.dtype) if options.dtype else ()
    weights = () if model.startswith("tiny/") else ("--workload.weights", "random")
    return [
        *("--engine", options.engine, *options.levers),
        *("workload:text-to-image", "--workload.model_id", model, *size, *dtype, *weights),
        *("--workload.inference_steps", str(options.steps)),
        *("--workload.dataset", "bundled", "--workload.base_dir", folder),
    ]


def _with_short_text(model_id: str, folder: str) -> str:
    """A folder with the model's configurations, its long text encoder cut to a few layers."""
    from mlenergy.diffusion.models.architectures.reader import architecture
    from mlenergy.diffusion.weights.random.tokenizers import build_tokenizer

    model, root = architecture(model_id), Path(folder) / "model"
    index: dict[str, Any] = {"_class_name": model.pipeline_class, **model.options}
    for name, part in model.components.items():
        config = dict(part.config)
        if part.class_name == "T5EncoderModel":
            config["num_layers"] = TEXT_LAYERS
        index[name] = part.class_path.rsplit(".", 1)
        file = "scheduler_config.json" if name == "scheduler" else "config.json"
        (root / name).mkdir(parents=True)
        (root / name / file).write_text(json.dumps({"_class_name": part.class_name, **config}))
    for name, wanted in model.tokenizers.items():
        index[name] = wanted.class_path.rsplit(".", 1)
        build_tokenizer(wanted).save_pretrained(root / name)
    (root / "model_index.json").write_text(json.dumps(index))
    return str(root)


def options_of(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of this script, and `levers`: all other words."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain, allow_abbrev=False)
    parser.add_argument(
        "--model_id", default=PIXART, help="a model whose architecture is part of the package"
    )
    parser.add_argument("--whole_text_encoder", action="store_true", help="do not cut the text encoder")
    parser.add_argument("--engine", default="diffusers", choices=("diffusers", "xdit"))
    parser.add_argument("--dtype", help="default: float32 on a CPU, the model's own elsewhere")
    parser.add_argument("--side_px", type=int, default=128, help="height and width in pixels")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--starts", type=int, default=3, help="how often both sides are started anew")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of windows of a start, one of each side")
    parser.add_argument("--json", help="also write the report there")
    options, options.levers = parser.parse_known_args(words)
    if min(options.starts, options.pairs) < 1 or options.starts * options.pairs < 2:
        parser.error("--starts and --pairs must be at least 1, and one of them 2: one pair has no interval")
    if options.dtype is None:
        from mlenergy.diffusion.environment.device import detect_device

        options.dtype = "float32" if detect_device("auto")[0] == "cpu" else ""
    return options


if __name__ == "__main__":
    sys.exit(main())
