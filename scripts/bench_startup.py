#!/usr/bin/env python3
"""Seconds of a tiny run, start and end included, against bare scripts; and of commands that answer at once.

    python scripts/bench_startup.py [--pairs 5] [--processes 1 2] [--json FILE]
    python scripts/bench_startup.py --commands [--json FILE]

A run loads a tiny model from a folder, warms up with one image, makes a second one and saves it. Beside ours
stand a script of xfuser alone (under torchrun, like ours) and one of diffusers alone (one process):
scripts/bench_startup_bare.py. The sides take turns, in an order drawn anew for every round. Printed are each
side's median seconds by the clock and of processor time over all of its processes, and the ratios of ours to
the bare script of the same round: their median, and the interval between order statistics that holds it in
95 %. Processor time is what a busy machine disturbs least. Aim: at most 1.1 of the bare script of xfuser.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_overhead import ratio

PYTHON = sys.executable
BARE = str(Path(__file__).with_name("bench_startup_bare.py"))
MODULE = [PYTHON, "-m", "mlenergy.diffusion.benchmark"]
COMMANDS = {
    "--help": [*MODULE, "--help"],
    "--dry_run": [
        *MODULE,
        "--dry_run",
        "workload:t2i",
        "--workload.model_id",
        "black-forest-labs/FLUX.1-dev",
    ],
    "mlenergy models": [str(Path(PYTHON).with_name("mlenergy")), "models"],
}
STARTS = 5
SIDE_PX, STEPS = 64, 2


def main() -> None:
    """Print the table, and write it where asked."""
    options = _options()
    report = {"machine": _machine()}
    if options.commands:
        report["commands_s"] = {name: time_starts(command) for name, command in COMMANDS.items()}
        for name, seconds in report["commands_s"].items():
            print(f"{name:16s} slowest {max(seconds):.3f} s   median {statistics.median(seconds):.3f} s")
    else:
        report["runs"] = time_runs(options.processes, options.pairs)
        print(as_table(report["runs"]))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def _options() -> argparse.Namespace:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--commands", action="store_true", help="time the commands that answer at once")
    parser.add_argument("--pairs", type=int, default=5, help="rounds, each with one run of every side")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def time_starts(command: list[str]) -> list[float]:
    """Seconds of each of the counted starts, after one that warms the file cache."""
    return [measured(command)["wall_s"] for _ in range(STARTS + 1)][1:]


def time_runs(processes: list[int], rounds: int) -> list[dict[str, Any]]:
    """Every side's seconds of every round, and our ratios, for each number of processes."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        model = save_model(Path(place) / "model")
        for count in processes:
            commands = sides(model, place, count)
            for command in commands.values():
                measured(command)  # warms the file cache
            taken = [one_round(commands) for _ in range(rounds)]
            rows.append(row_of(count, taken))
    return rows


def sides(model: str, place: str, processes: int) -> dict[str, list[str]]:
    """Side -> its command."""
    torchrun = [PYTHON, "-m", "torch.distributed.run", "--standalone", "--local_addr=127.0.0.1"]
    work = [model, str(SIDE_PX), str(STEPS), str(Path(place) / "bare.png")]
    launcher = [PYTHON, "-m", "mlenergy.diffusion", "run", "--overwrite_results", "--benchmark_iters", "1"]
    found = {
        "ours, xdit": [
            *launcher,
            "--engine",
            "xdit",
            "--ulysses_degree",
            str(processes),
            *our_workload(model, place),
        ],
        "bare xfuser": [*torchrun, f"--nproc_per_node={processes}", BARE, "xfuser", *work],
    }
    if processes == 1:
        found["ours, diffusers"] = [*launcher, "--engine", "diffusers", *our_workload(model, place)]
        found["bare diffusers"] = [PYTHON, BARE, "diffusers", *work]
    return found


def our_workload(model: str, place: str) -> list[str]:
    """The same work as the bare scripts', in our options."""
    return [
        *("workload:text-to-image", "--workload.model_id", model, "--workload.dataset", "bundled"),
        *("--workload.height", str(SIDE_PX), "--workload.width", str(SIDE_PX)),
        *("--workload.inference_steps", str(STEPS), "--workload.base_dir", str(Path(place) / "run")),
    ]


def save_model(folder: Path) -> str:
    """tiny/flux on disk, made by a process of its own."""
    code = (
        "import sys, torch\n"
        "from mlenergy.diffusion.models.architectures.reader import architecture\n"
        "from mlenergy.diffusion.weights.random.pipeline import build_random_pipeline\n"
        "pipeline = build_random_pipeline(architecture('tiny/flux'), 'cpu', torch.float32, 0)\n"
        "pipeline.save_pretrained(sys.argv[1])"
    )
    subprocess.run([PYTHON, "-c", code, str(folder)], check=True, capture_output=True)
    return str(folder)


def one_round(commands: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    """Every side once, in an order drawn anew."""
    names = random.sample(list(commands), len(commands))
    return {name: measured(commands[name]) for name in names}


def measured(command: list[str]) -> dict[str, float]:
    """Seconds of a command by the clock, and of processor time in it and all that it waited for."""
    before, begin_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall_s, after = time.perf_counter() - begin_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"bench_startup: {' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall_s, "cpu_s": cpu_s}


def row_of(processes: int, rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians of every side, and the ratios of ours to the bare script of the same round."""
    pairs = {"bare xfuser": "ours, xdit", "bare diffusers": "ours, diffusers"}
    return {
        "processes": processes,
        "rounds": rounds,
        "sides": {
            name: {key: statistics.median(one[name][key] for one in rounds) for key in ("wall_s", "cpu_s")}
            for name in rounds[0]
        },
        "ratios": {
            bare: {
                key: ratio([one[ours][key] / one[bare][key] for one in rounds]) for key in ("wall_s", "cpu_s")
            }
            for bare, ours in pairs.items()
            if bare in rounds[0]
        },
    }


def as_table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = ["| processes | side | clock, s | processor, s | ours ÷ bare, clock | ours ÷ bare, processor |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        for name, side in row["sides"].items():
            found = row["ratios"].get(name.replace("ours, xdit", "bare xfuser").replace("ours, ", "bare "))
            cells = (
                ["", ""] if found is None or name.startswith("bare") else [_told(found[key]) for key in side]
            )
            times = f"{side['wall_s']:.2f} | {side['cpu_s']:.2f}"
            lines.append(f"| {row['processes']} | {name} | {times} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _told(found: dict[str, Any]) -> str:
    low, high = found["median_ci95"]
    return f"{found['median']:.3f} ({low:.3f} to {high:.3f})"


def _machine() -> dict[str, Any]:
    from mlenergy.diffusion.environment.record import node_record

    node = node_record()
    return {
        "python": platform.python_version(),
        "cpu": node["cpu"],
        "cpu_cores": node["cpu_cores"],
        "gpus": [gpu["name"] for gpu in node["gpus"]],
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
