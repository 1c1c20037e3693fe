"""Runs measurements on the driver double, in a process of its own; cases in, figures out, as JSON.

A case: {"controls": {...}, "gpu": uuid or null, "reason": ..., "options": {...}, "seconds": 2.0,
"windows": 2, "phases": [[stage, seconds], ...]}. With RANK set it is one rank of several, and
HOSTNAME_DOUBLE names its node. Controls of the double under "during" are set after the meter is
made; "THEN+1.5" in them means 1.5 s after THEN, for which the first generate waits, so that the
sampling child, too, knows the moment.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import time
from pathlib import Path

import torch

from mlenergy.diffusion.distributed.cluster import Cluster, read_rank
from mlenergy.diffusion.engine import Batch, Generated
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.measure.energy import counters
from mlenergy.diffusion.measure.energy.meter import MeterOptions, build_meter
from mlenergy.diffusion.measure.energy.power_limit import power_limit
from mlenergy.diffusion.measure.memory import MemoryWatch
from mlenergy.diffusion.measure.session import Instruments, Schedule, measure
from mlenergy.diffusion.measure.stages import StageProbe
from mlenergy.diffusion.models.families import FLUX

CPU = torch.device("cpu")
LEAD_S = 2.5
BATCH = Batch(prompts=("a red fox",), seeds=(0,))


class Part(torch.nn.Module):
    """A component that works until a moment of the clock, or for some seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.until: float | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds if self.until is None else max(0.0, self.until - time.monotonic()))
        return x


class Vae(torch.nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.decoder = Part(seconds)


def generator(case: dict, stamps: list) -> tuple:
    """A generate that sleeps through the case's stages, and the components to watch."""
    stages = case.get("stages")
    image = torch.zeros(1, 3, 2, 2)
    if stages is None:

        def generate(_batch: Batch) -> Generated:
            begin = time.monotonic()
            time.sleep(case["seconds"])
            stamps.append((begin, time.monotonic()))
            return Generated(image)

        return generate, {}
    text, step, decode = stages
    parts = {"text_encoder": Part(text), "transformer": Part(step), "vae": Vae(decode)}
    align_s = case.get("align_s")

    def staged(_batch: Batch) -> Generated:
        # All stages keep to the clock that the power curve follows.
        begin = time.monotonic()
        edge = begin
        for part, seconds in (
            (parts["text_encoder"], text),
            (parts["transformer"], step),
            (parts["vae"].decoder, decode),
        ):
            edge += seconds
            part.until = edge
            part(image)
        stamps.append((begin, time.monotonic()))
        return Generated(image)

    def aligned(batch: Batch) -> Generated:
        # Wait for the begin of the power curve's period: this wait is the window's "other".
        time.sleep(align_s - time.monotonic() % align_s)
        return staged(batch)

    return (aligned if align_s else staged), parts


def from_then(value: str, then: float) -> str:
    """Put the moment in place of "THEN+1.5"."""
    return re.sub(r"THEN\+([\d.]+)", lambda found: str(then + float(found.group(1))), value)


def waiting(generate, then: float):
    """A generate whose first call waits for a moment."""

    def wait(batch: Batch) -> Generated:
        time.sleep(max(0.0, then - time.monotonic()))
        return generate(batch)

    return wait


def run_case(case: dict, cluster: Cluster) -> dict:
    before = dict(os.environ)
    try:
        return _run_case(case, cluster)
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def _run_case(case: dict, cluster: Cluster) -> dict:
    os.environ.update(case.get("controls", {}))
    stamps: list = []
    generate, parts = generator(case, stamps)
    options = MeterOptions(**{"idle_s": 0.0, **case.get("options", {})})
    try:
        meter = build_meter(cluster, case.get("gpu"), case.get("reason"), options)
    except UserError as error:
        return {"error": str(error)}
    during = case.get("during", {})
    then = time.monotonic() + LEAD_S
    os.environ.update({name: from_then(value, then) for name, value in during.items()})
    if any("THEN" in value for value in during.values()):
        generate = waiting(generate, then)
    if started := os.environ.get("STARTED"):
        Path(started).touch()
    probe = StageProbe(parts, FLUX.stages, 1, CPU) if parts else None
    instruments = Instruments(meter, probe, MemoryWatch(CPU, {}))
    schedule = Schedule(warmup=[], measured=[BATCH] * case.get("windows", 1))
    try:
        with power_limit(cluster, meter, case.get("power_limit_w")):
            measured, _ = measure(generate, schedule, instruments, cluster, keep_outputs=False)
    except UserError as error:
        return {"error": str(error)}
    if measured is None:
        return {}
    return {
        **dataclasses.asdict(measured),
        "stamps": stamps,
        "read_here": [gpu.uuid for gpu in meter.gpus],
        "gpu_energy_j": [iteration.energy.gpu_energy_j for iteration in measured.iterations],
    }


def main() -> None:
    rank = read_rank()
    if rank.launched:
        rank = dataclasses.replace(rank, hostname=os.environ["HOSTNAME_DOUBLE"])
        cluster = Cluster.start(rank, "cpu")
    else:
        cluster = Cluster(dataclasses.replace(rank, hostname="here"), CPU, None)
    if rapl := os.environ.get("RAPL_DOUBLE"):
        import zeus.device.cpu.rapl

        zeus.device.cpu.rapl.RAPL_DIR = rapl
        counters.RAPL_PLACES = (rapl,)
    cases = json.loads(os.environ["CASES"])
    results = [run_case(case, cluster) for case in cases]
    if rank.is_main:
        Path(os.environ["RESULTS"]).write_text(json.dumps(results))
    if rank.launched:
        cluster.close()


if __name__ == "__main__":
    main()
    sys.exit(0)
