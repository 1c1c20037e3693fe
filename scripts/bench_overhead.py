"""What the instrument itself costs: one tiny pipeline, with and without it, in turns.

    python scripts/bench_overhead.py [--seconds 0.5] [--pairs 40] [--json FILE]
    python scripts/bench_overhead.py --sampling [0.1 0.01] [--double 1 8] [--pairs 40] [--json FILE]

Both sides run the same window (sync, barrier, generate, sync, barrier). One side has
everything on: counters of every GPU that the driver shows and of the CPUs, the sampling child,
hooks on the components, memory per stage. The sides take turns, in an order drawn anew for
every pair; each runs two windows, of which the second counts. Printed are the ratios of the pairs, measured
over plain, once by the window's clock and once by the processor time that this process spent in it (which a
busy machine disturbs less): the geometric mean with Student's t interval, and the median with its own (by
order statistics), both of 95 %. Beside them stand the parts' own costs: seconds of the hooks and the memory
marks, timed inside of real windows; processor time of reading the counters at both ends; the sampling child's
share of one core. Aim: at most 1.01 of an iteration of 0.5 s.

With --sampling the sides are the same window with and without the sampling process, which is stopped
(SIGSTOP) for the windows without it. Printed is what sampling adds to an iteration, for each of the
periods: aim 0.5 % at most. It reads the GPUs of this machine, or with --double so many GPUs of the tests'
driver double each (gcc builds it).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.models.spec import Stage

if TYPE_CHECKING:
    from mlenergy.diffusion.measure.samples import Measurement
    from mlenergy.diffusion.measure.stages import StageProbe


@dataclass(frozen=True)
class Cost:
    """Seconds of one window: by the clock, and of processor time in this process."""

    wall_s: float
    cpu_s: float


@dataclass
class Bench:
    """The pipeline, and the two ways of running it."""

    engine: Any
    cluster: Any
    stages: Mapping[str, Stage]
    steps: int
    reads_gpus: bool
    cpu_s: float = 0.0  # of the last generate

    def generate(self, batch: Batch) -> Any:
        """The engine's own, with the processor time noted."""
        begin_s = time.process_time()
        generated = self.engine.generate(batch)
        self.cpu_s = time.process_time() - begin_s
        return generated

    def plain(self, batch: Batch) -> Cost:
        """One window without the instrument, after one that does not count."""
        from mlenergy.diffusion.measure.window import NoReader, run_window

        for _ in range(2):
            window = run_window(self.generate, batch, NoReader(), self.cluster, self.cluster.device)
        return Cost(window.duration_s, self.cpu_s)

    def measured(self, batch: Batch) -> Cost:
        """The same windows with everything on, sampling child included.

        The instrument is set up just before the first, which the second, that counts, no longer shows.
        """
        from mlenergy.diffusion.measure.stages import StageProbe

        return Cost(self.measure(batch, 2, StageProbe).iterations[-1].duration_s, self.cpu_s)

    def measure(self, batch: Batch, windows: int, probe: type[StageProbe]) -> Measurement:
        """So many windows of one batch with everything on."""
        from mlenergy.diffusion.measure.energy.meter import MeterOptions, build_meter
        from mlenergy.diffusion.measure.memory import MemoryWatch
        from mlenergy.diffusion.measure.session import Instruments, Schedule, measure

        options = MeterOptions(energy_gpus=("all",) if self.reads_gpus else (), idle_s=0.0)
        components = self.engine.components()
        device = self.cluster.device
        instruments = Instruments(
            build_meter(self.cluster, None, None, options),
            probe(components, self.stages, self.steps, device),
            MemoryWatch(device, components),
        )
        schedule = Schedule(warmup=[], measured=[batch] * windows)
        measured, _ = measure(self.generate, schedule, instruments, self.cluster, keep_outputs=False)
        assert measured is not None
        return measured


def main() -> None:
    """Run the pairs and print the ratio."""
    options = _options()
    if options.sampling is not None:
        # Ends the sampling process too, which, while it is stopped, would not see that this one is gone.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        report = _sampling_of_doubles(options) if options.double else _sampling_report(options)
        print(sampling_table(report))
        _write(report, options.json)
        return
    with tempfile.TemporaryDirectory() as folder:
        bench, batch = _prepare(options.seconds, folder)
        bench.plain(batch), bench.measured(batch)
        pairs = [
            _pair(lambda: bench.plain(batch), lambda: bench.measured(batch)) for _ in range(options.pairs)
        ]
        report = {**_report(pairs, bench.reads_gpus), **_parts(bench, batch)}
    print(json.dumps(report, indent=1))
    _write(report, options.json)


def _write(report: Mapping[str, Any], path: str | None) -> None:
    if path:
        Path(path).write_text(json.dumps(report, indent=1) + "\n")


def _options() -> argparse.Namespace:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of an iteration, in seconds")
    parser.add_argument("--pairs", type=int, default=40, help="pairs of runs, one of each side")
    parser.add_argument("--json", help="also write the report there")
    text = "what sampling alone adds, at these periods (default: 0.1 0.01)"
    parser.add_argument("--sampling", nargs="*", type=float, metavar="PERIOD_S", help=text)
    text = "with --sampling: read the tests' double of the driver, with so many GPUs"
    parser.add_argument("--double", nargs="*", type=int, default=[], metavar="GPUS", help=text)
    return parser.parse_args()


def _prepare(seconds: float, folder: str) -> tuple[Bench, Batch]:
    """tiny/flux, with as many steps as make an iteration of about the asked length."""
    from mlenergy.diffusion.config.resolve import plan_from
    from mlenergy.diffusion.distributed.cluster import Cluster, read_rank
    from mlenergy.diffusion.engines import load_engine
    from mlenergy.diffusion.environment.gpus import list_gpus

    batch, steps = Batch(("a red fox in snow",), (7,)), 8
    cluster = None
    while True:
        argv = [
            *("--engine", "diffusers", "workload:text-to-image", "--workload.model_id", "tiny/flux"),
            *("--workload.base_dir", folder, "--workload.dataset", "bundled"),
            *("--workload.height", "256", "--workload.width", "256"),
            *("--workload.inference_steps", str(steps)),
        ]
        _, plan = plan_from(argv, 1, "bench_overhead")
        cluster = cluster or Cluster.start(read_rank(), plan.device)
        stages = plan.spec.family.stages
        bench = Bench(load_engine(plan, cluster), cluster, stages, steps, bool(list_gpus().gpus))
        bench.plain(batch)
        took_s = statistics.median(bench.plain(batch).wall_s for _ in range(3))
        if took_s > 0.8 * seconds:
            return bench, batch
        steps = min(2 * steps, max(steps + 1, round(steps * seconds / took_s)))


def _pair(without: Callable[[], Cost], with_it: Callable[[], Cost]) -> tuple[Cost, Cost]:
    """(without, with), in an order drawn anew: neither always runs first."""
    if random.random() < 0.5:
        cost = without()
        return cost, with_it()
    cost = with_it()
    return without(), cost


def _sampling_of_doubles(options: argparse.Namespace) -> dict[str, Any]:
    """Each number of GPUs in a process of its own: a library is found by the variables of the start."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    import driver_double

    cells: list[dict[str, Any]] = []
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        library, path = driver_double.build(Path(folder)), Path(folder) / "report.json"
        for gpus in options.double:
            command = [
                sys.executable,
                __file__,
                "--json",
                str(path),
                "--sampling",
                *map(str, options.sampling),
            ]
            command += ["--pairs", str(options.pairs), "--seconds", str(options.seconds)]
            environ = driver_double.environment(library, gpus=gpus, name="Double GPU")
            subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
            report = json.loads(path.read_text())
            cells += report["cells"]
    return {**report, "cells": cells}


def _sampling_report(options: argparse.Namespace) -> dict[str, Any]:
    """Every period on the GPUs that the driver shows, and this machine."""
    from mlenergy.diffusion.environment.gpus import list_gpus
    from mlenergy.diffusion.environment.record import node_record

    listed = list_gpus()
    if not listed.gpus:
        raise SystemExit(f"no GPU to sample: {listed.reason}; name a number of doubles by --double")
    with tempfile.TemporaryDirectory() as folder:
        bench, batch = _prepare(options.seconds, folder)
        indices = [gpu.index for gpu in listed.gpus]
        cells = [
            sampling_cell(lambda: bench.plain(batch), indices, period_s, options.pairs)
            for period_s in options.sampling or (0.1, 0.01)
        ]
    node = node_record()
    machine = {key: node[key] for key in ("cpu", "cpu_cores")}
    return {"cells": cells, **machine, "load_average": os.getloadavg()[0]}


def sampling_cell(
    window: Callable[[], Cost], indices: list[int], period_s: float, pairs: int
) -> dict[str, Any]:
    """One period: windows beside the sampling process at work, and beside the same process stopped."""
    import psutil

    from mlenergy.diffusion.measure.energy.sampler import Sampler

    before = set(psutil.Process().children())
    sampler = Sampler(indices, period_s)
    if (failure := sampler.start()) is not None:
        raise SystemExit(failure)
    (child,) = set(psutil.Process().children()) - before
    spent, sampled_s = 0.0, 0.0

    def with_it() -> Cost:
        nonlocal spent, sampled_s
        child.send_signal(signal.SIGCONT)
        begin, begin_s = child.cpu_times(), time.monotonic()
        cost = window()
        end = child.cpu_times()
        spent += end.user + end.system - begin.user - begin.system
        sampled_s += time.monotonic() - begin_s
        stop()
        return cost

    def stop() -> None:
        child.send_signal(signal.SIGSTOP)
        while child.status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)

    try:
        stop()
        costs = [_pair(window, with_it) for _ in range(pairs)]
        child.send_signal(signal.SIGCONT)
        sampler.stop()
    finally:
        sampler.kill()
    return {
        "gpus": len(indices),
        "requested_period_s": period_s,
        "period_s": sampler.period_s,
        "counter_poll_s": sampler.poll_s,
        "sample_read_s": sampler.sample_read_s,
        "pairs": pairs,
        "iteration_s": statistics.median(without.wall_s for without, _ in costs),
        "added_by_clock": _added([with_.wall_s / without.wall_s for without, with_ in costs]),
        "added_processor_time": _added([with_.cpu_s / without.cpu_s for without, with_ in costs]),
        "sampling_process_cores": spent / sampled_s,
    }


def _added(ratios: list[float]) -> dict[str, Any]:
    """What sampling adds, as a share of the iteration without it."""

    def less_one(found: Any) -> Any:
        if found is None:
            return None
        return [one - 1 for one in found] if isinstance(found, list) else found - 1

    return {key: less_one(found) for key, found in ratio(ratios).items()}


def sampling_table(report: Mapping[str, Any]) -> str:
    """The cells as a table in Markdown, with the machine and its load."""
    lines = [
        f"{report['cpu']}, {report['cpu_cores']} cores, load average {report['load_average']:.1f}",
        "",
        "| GPUs | period asked, real | counters every | a sample takes | iteration | added, by clock "
        "(95 %) | added processor time (95 %) | sampling process |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in report["cells"]:
        shares = [
            "{:+.2%} ({:+.2%} to {:+.2%})".format(cell[key]["median"], *cell[key]["median_ci95"])
            for key in ("added_by_clock", "added_processor_time")
        ]
        read = "unknown" if cell["sample_read_s"] is None else f"{1000 * cell['sample_read_s']:.2f} ms"
        lines.append(
            f"| {cell['gpus']} | {1000 * cell['requested_period_s']:g} ms, {1000 * cell['period_s']:.4g} ms "
            f"| {1000 * cell['counter_poll_s']:.4g} ms | {read} | {cell['iteration_s']:.3f} s "
            f"| {shares[0]} | {shares[1]} | {cell['sampling_process_cores']:.2%} of a core |"
        )
    return "\n".join(lines)


def _report(pairs: list[tuple[Cost, Cost]], reads_gpus: bool) -> dict[str, Any]:
    from mlenergy.diffusion.environment.record import node_record

    node = node_record()
    return {
        "pairs": len(pairs),
        "iteration_s": statistics.median(plain.wall_s for plain, _ in pairs),
        "wall_ratio": ratio([measured.wall_s / plain.wall_s for plain, measured in pairs]),
        "cpu_ratio": ratio([measured.cpu_s / plain.cpu_s for plain, measured in pairs]),
        "gpus_read": len(node["gpus"]) if reads_gpus else 0,
        "cpu": node["cpu"],
        "cpu_cores": node["cpu_cores"],
        "load_average": os.getloadavg()[0],
        "gpus": [gpu["name"] for gpu in node["gpus"]],
    }


def _parts(bench: Bench, batch: Batch) -> dict[str, float | None]:
    """What each part costs by itself."""
    from mlenergy.diffusion.environment.gpus import list_gpus
    from mlenergy.diffusion.measure.energy.counters import Counters

    gpus = list_gpus().gpus
    counters = Counters("here", gpus, with_cpus=True)
    begin_s = time.process_time()
    for _ in range(300):
        counters.begin()
        counters.end()
    return {
        "counters_s_per_window": (time.process_time() - begin_s) / 300,
        "hooks_s_per_window": _hooks_s(bench, batch),
        "steps_per_window": bench.steps,
        "sampling_child_cores": _child_cores([gpu.index for gpu in gpus]) if gpus else None,
    }


def _hooks_s(bench: Bench, batch: Batch, windows: int = 20) -> float:
    """Seconds that the marks and the peaks of memory take of one window, timed inside of real windows.

    Between real work they take several times what they take in a loop of their own.
    """
    from mlenergy.diffusion.measure.stages import StageProbe

    spent_s = 0.0

    def timed(mark: Callable[..., None]) -> Callable[..., None]:
        def marked(*called: Any) -> None:
            nonlocal spent_s
            begin_s = time.perf_counter()
            mark(*called)
            spent_s += time.perf_counter() - begin_s

        return marked

    class TimedProbe(StageProbe):
        def _marks(self, stage: Stage) -> tuple[Callable[..., None], Callable[..., None]]:
            before, after = super()._marks(stage)
            return timed(before), timed(after)

    bench.measure(batch, windows, TimedProbe)
    return spent_s / windows


def _child_cores(indices: list[int], seconds: float = 10.0) -> float:
    """Share of one core that the sampling child takes."""
    import psutil

    from mlenergy.diffusion.measure.energy.sampler import Sampler

    before = set(psutil.Process().children())
    sampler = Sampler(indices, 0.1)
    sampler.start()
    (child,) = set(psutil.Process().children()) - before
    begin, begin_s = child.cpu_times(), time.monotonic()
    time.sleep(seconds)
    end, end_s = child.cpu_times(), time.monotonic()
    sampler.kill()
    return (end.user + end.system - begin.user - begin.system) / (end_s - begin_s)


def ratio(ratios: list[float]) -> dict[str, Any]:
    """Geometric mean and median with their 95 % intervals.

    The mean is that of the logarithms: noise moves a ratio and its inverse alike, so that the arithmetic
    mean of ratios lies above 1 by about the square of the noise where both sides are equal.
    """
    from mlenergy.diffusion.measure.statistics import summarize

    summary, ordered = summarize([math.log(one) for one in ratios]), sorted(ratios)
    low, high = summary.ci95_low, summary.ci95_high
    # The order statistics between which the median lies in 95 % of samples (normal approximation).
    below = max(0, int(len(ordered) / 2 - 0.98 * len(ordered) ** 0.5))
    return {
        "geometric_mean": math.exp(summary.mean),
        "geometric_mean_ci95": None if low is None or high is None else [math.exp(low), math.exp(high)],
        "median": math.exp(summary.median),
        "median_ci95": [ordered[below], ordered[len(ordered) - 1 - below]],
    }


if __name__ == "__main__":
    main()
