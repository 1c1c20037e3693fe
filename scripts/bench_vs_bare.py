"""Our generate against a bare diffusers pipeline of the same random model, in turns.

    python scripts/bench_vs_bare.py [--engine diffusers] [--pairs 12] [--json FILE]
    python scripts/bench_vs_bare.py --model_id black-forest-labs/FLUX.1-dev --side_px 1024 --steps 28

Each side is a process of its own with the same seeded weights, so that nothing of ours can reach the
bare one: that builds the pipeline and calls it as the documentation of diffusers says. Ours is one
measured window of the benchmark, with its hooks and barriers. They take turns, in an order drawn anew
for every pair; while one runs, the other sleeps. Printed are the ratios of the pairs, ours over bare:
mean and median with 95 % intervals, and the largest difference between the two sides' images, which
has to be nothing but rounding. Exit code 1 where the interval of the mean lies above 1.

The default fits a CPU: PixArt-Sigma's transformer and VAE at full size, its text encoder cut to two layers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench_overhead import ratio

PIXART = "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"
TEXT_LAYERS = 2

Window = Callable[[], tuple[float, Any]]  # seconds, and the images


def main() -> int:
    """Run the pairs and print the report; 1 where ours is slower beyond noise."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model_id if options.whole_text_encoder else _with_short_text(options.model_id, folder)
        argv = _command_line(options, model, folder)
        sides = {name: Side(name, argv) for name in ("bare", "ours")}
        difference = _difference(sides)
        pairs = [_pair(sides) for _ in range(options.pairs)]
        for side in sides.values():
            side.end()
    report = _report(options, pairs, difference)
    print(json.dumps(report, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    return 0 if report["not_slower_beyond_noise"] else 1


class Side:
    """One process with one loaded pipeline, which runs a window when it is told to."""

    def __init__(self, name: str, argv: Sequence[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, list(argv)))
        self._process.start()
        theirs.close()  # so that its death ends our waiting

    def run(self, with_images: bool = False) -> tuple[float, Any]:
        """Seconds of one window, and its images as an array where they are asked for."""
        self._pipe.send(with_images)
        seconds, images = self._pipe.recv()
        return float(seconds), images

    def end(self) -> None:
        """Let the process go."""
        self._pipe.send(None)
        self._process.join()


def _serve(pipe: Any, name: str, argv: list[str]) -> None:
    from mlenergy.diffusion.config.resolve import plan_from

    _, plan = plan_from(argv, 1, "bench_vs_bare")
    run = {"bare": _bare, "ours": _ours}[name](plan)
    while (with_images := pipe.recv()) is not None:
        seconds, images = run()
        pipe.send((seconds, images.float().cpu().numpy() if with_images else None))


def _bare(plan: Any) -> Window:
    import torch

    from mlenergy.diffusion.engines.call import call_arguments
    from mlenergy.diffusion.weights.per_node import locate
    from mlenergy.diffusion.weights.pipeline import load

    device = torch.device(plan.device)
    pipeline: Any = load(locate(plan), plan, device)
    arguments = call_arguments(plan)

    def window() -> tuple[float, Any]:
        _synchronize(device)
        begin_s = time.perf_counter()
        images = pipeline(
            prompt=["a red fox"], generator=torch.Generator().manual_seed(7), **arguments
        ).images
        _synchronize(device)
        return time.perf_counter() - begin_s, images

    return window


def _ours(plan: Any) -> Window:
    from mlenergy.diffusion.distributed.cluster import Cluster, read_rank
    from mlenergy.diffusion.engine import Batch
    from mlenergy.diffusion.engines import load_engine
    from mlenergy.diffusion.measure.energy.meter import MeterOptions, build_meter
    from mlenergy.diffusion.measure.memory import MemoryWatch
    from mlenergy.diffusion.measure.session import Instruments, Schedule, measure
    from mlenergy.diffusion.measure.stages import StageProbe

    cluster = Cluster.start(read_rank(), plan.device)
    engine = load_engine(plan, cluster)
    meter = build_meter(cluster, None, None, MeterOptions(idle_s=0.0))
    batch, kept = Batch(("a red fox",), (7,)), []

    def generate(batch: Batch) -> Any:
        generated = engine.generate(batch)
        kept[:] = [generated.images]
        return generated

    def window() -> tuple[float, Any]:
        components, device = engine.components(), cluster.device
        instruments = Instruments(
            meter,
            StageProbe(components, plan.spec.family.stages, plan.steps, device),
            MemoryWatch(device, components),
        )
        schedule = Schedule(warmup=[], measured=[batch])
        measured, _ = measure(generate, schedule, instruments, cluster, keep_outputs=False)
        assert measured is not None
        return measured.iterations[0].duration_s, kept[0]

    return window


def _synchronize(device: Any) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def _difference(sides: dict[str, Side]) -> float:
    """Warms both sides up, too."""
    bare, ours = (sides[name].run(with_images=True)[1] for name in ("bare", "ours"))
    return float(abs(bare - ours).max())


def _pair(sides: dict[str, Side]) -> tuple[float, float]:
    """Seconds of (bare, ours), in an order drawn anew: neither always runs first."""
    names = list(sides)
    random.shuffle(names)
    seconds = {name: sides[name].run()[0] for name in names}
    return seconds["bare"], seconds["ours"]


def _report(
    options: argparse.Namespace, pairs: list[tuple[float, float]], difference: float
) -> dict[str, Any]:
    from mlenergy.diffusion.environment.record import node_record

    node, found = node_record(), ratio([ours / bare for bare, ours in pairs])
    return {
        **{key: value for key, value in vars(options).items() if key != "json"},
        "bare_s": statistics.median(bare for bare, _ in pairs),
        "ours_s": statistics.median(ours for _, ours in pairs),
        "ratio": found,
        "not_slower_beyond_noise": found["mean_ci95"][0] <= 1.0,
        "images_largest_difference": difference,
        "cpu": node["cpu"],
        "cpu_cores": node["cpu_cores"],
        "gpus": [gpu["name"] for gpu in node["gpus"]],
        "load_average": os.getloadavg()[0],
    }


def _command_line(options: argparse.Namespace, model: str, folder: str) -> list[str]:
    size = ("--workload.height", str(options.side_px), "--workload.width", str(options.side_px))
    dtype = ("--workload.dtype", options.dtype) if options.dtype else ()
    return [
        *("--engine", options.engine, "workload:text-to-image", "--workload.model_id", model, *size, *dtype),
        *("--workload.weights", "random", "--workload.inference_steps", str(options.steps)),
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


def _options() -> argparse.Namespace:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument(
        "--model_id", default=PIXART, help="a model whose architecture is part of the package"
    )
    parser.add_argument("--whole_text_encoder", action="store_true", help="do not cut the text encoder")
    parser.add_argument("--engine", default="diffusers", choices=("diffusers", "xdit"))
    parser.add_argument("--dtype", help="default: float32 on a CPU, the model's own elsewhere")
    parser.add_argument("--side_px", type=int, default=128, help="height and width in pixels")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=12, help="pairs of windows, one of each side")
    parser.add_argument("--json", help="also write the report there")
    options = parser.parse_args()
    if options.dtype is None:
        from mlenergy.diffusion.environment.device import detect_device

        options.dtype = "float32" if detect_device("auto")[0] == "cpu" else ""
    return options


if __name__ == "__main__":
    sys.exit(main())
