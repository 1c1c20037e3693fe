"""Both sides of scripts/bench_vs_bare.py in one process: prints what they did and made, as JSON.

Words of the script, several runs parted by "--".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import bench_vs_bare
import torch
import vs_bare_sides


def compare(words: list[str]) -> dict[str, object]:
    """What both sides did with the same options, and what the script finds wrong with it."""
    options = bench_vs_bare.options_of(words)
    plan = bench_vs_bare.plan_of(options)
    work, graphs, images = {}, {}, {}
    for name, side in (("bare", vs_bare_sides.bare), ("ours", vs_bare_sides.ours)):
        torch._dynamo.reset()  # as in processes of their own: no side finds the other's compiled code
        window = side(plan)
        before = vs_bare_sides.answer_to("graphs", window)
        work[name] = vs_bare_sides.answer_to("work", window)
        images[name] = vs_bare_sides.answer_to("images", window)
        graphs[name] = vs_bare_sides.answer_to("graphs", window) - before
    torch.distributed.destroy_process_group()  # of our side, for the next run
    difference = float(abs(images["bare"] - images["ours"]).max())
    return {
        "work": work,
        "graphs": graphs,
        "difference": difference,
        "faults": bench_vs_bare.faults(options, difference, work, graphs),
    }


def main(words: list[str]) -> None:
    """Compare each run."""
    runs: list[list[str]] = [[]]
    for word in words:
        if word == "--":
            runs.append([])
        else:
            runs[-1].append(word)
    print(json.dumps([compare(run) for run in runs]))


if __name__ == "__main__":
    main(sys.argv[1:])
