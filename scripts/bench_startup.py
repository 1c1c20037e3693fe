#!/usr/bin/env python3
"""Times the commands that must answer at once: five warm starts each, slowest and median in seconds.

Usage: scripts/bench_startup.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

MODULE = [sys.executable, "-m", "mlenergy.diffusion.benchmark"]
COMMANDS = {
    "--help": [*MODULE, "--help"],
    "--dry_run": [
        *MODULE,
        "--dry_run",
        "workload:t2i",
        "--workload.model_id",
        "black-forest-labs/FLUX.1-dev",
    ],
    "mlenergy models": [str(Path(sys.executable).with_name("mlenergy")), "models"],
}
STARTS = 5


def main() -> None:
    """Print a row a command, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = {name: time_starts(command) for name, command in COMMANDS.items()}
    for name, seconds in rows.items():
        print(f"{name:16s} slowest {max(seconds):.3f} s   median {statistics.median(seconds):.3f} s")
    if args.json:
        record = {"python": platform.python_version(), "machine": platform.machine(), "starts_s": rows}
        args.json.write_text(json.dumps(record, indent=2) + "\n")


def time_starts(command: list[str]) -> list[float]:
    """Seconds of each of the counted starts, after one that warms the file cache."""
    seconds = []
    for _ in range(STARTS + 1):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - begin)
    return seconds[1:]


if __name__ == "__main__":
    main()
