"""The instrument on a real GPU: counter, sampled power, nvidia-smi and events must tell one story."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest
import torch

from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engine import Batch, Generated
from mlenergy.diffusion.measure.energy.meter import MeterOptions, make_meter
from mlenergy.diffusion.measure.memory import MemoryWatch
from mlenergy.diffusion.measure.session import Instruments, Schedule, measure
from mlenergy.diffusion.measure.stages import StageProbe
from mlenergy.diffusion.models.families import FLUX

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


class Multiply(torch.nn.Module):
    """Matrix products for about so many seconds of a GPU."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.weight = torch.nn.Parameter(torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.rounds):
            x = x @ self.weight / 64
        return x


def test_counter_sampled_power_and_nvidia_smi_agree(alone):
    device = torch.device("cuda", 0)
    parts = {"text_encoder": Multiply(200), "transformer": Multiply(4000), "vae": Multiply(400)}
    x = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)

    @torch.no_grad()
    def generate(_batch: Batch) -> Generated:
        parts["text_encoder"](x)
        for _ in range(8):
            parts["transformer"](x)
        image = parts["vae"](x)[:64, :64].float().sigmoid()
        return Generated(image.expand(1, 3, 64, 64))

    batch = Batch(("a red fox",), (0,))
    meter = make_meter(alone, device, MeterOptions(idle_s=1.0, sample_period_s=0.05))
    smi = _start_nvidia_smi()
    begin = time.monotonic()
    probe = StageProbe(parts, FLUX.stages, 8, device)
    measured, (pixels, *_) = measure(
        generate,
        Schedule(warmup=[batch], measured=[batch] * 5),
        Instruments(meter, probe, MemoryWatch(device, parts)),
        Cluster(Rank(hostname="here"), device, None),
    )
    assert measured is not None and pixels.shape == (1, 64, 64, 3)
    counted_j = sum(iteration.energy.gpu_energy_j or 0 for iteration in measured.iterations)
    windows_s = sum(iteration.duration_s for iteration in measured.iterations)
    sampled_j = sum(iteration.energy.gpus[0].sampled_energy_j or 0 for iteration in measured.iterations)
    print(f"\ncounter {counted_j:.1f} J, sampled {sampled_j:.1f} J over {windows_s:.2f} s in windows")
    print(f"period {measured.counter_period_s}, idle {measured.idle_power_w}, {measured.warnings}")
    print(f"stages {measured.stage_energy}, all in {time.monotonic() - begin:.1f} s")
    assert sampled_j == pytest.approx(counted_j, rel=0.05)
    for iteration in measured.iterations:
        stages = iteration.stages
        assert stages is not None
        assert stages.text_encode_s + stages.denoise_s + stages.vae_decode_s == pytest.approx(
            iteration.duration_s, rel=0.02
        )
    (memory,) = measured.memory
    assert memory.peak_allocated_bytes and memory.peak_allocated_bytes >= 4 * 4096 * 4096 * 2
    assert memory.peak_stage in ("text_encode", "denoise", "vae_decode")
    if smi is not None:
        mean_w = _mean_w(smi)
        inside = [row for row in measured.timeline.power_w if row is not None] if measured.timeline else []
        print(f"nvidia-smi's mean over all {mean_w:.1f} W, ours {sum(inside) / len(inside):.1f} W")


def _start_nvidia_smi() -> subprocess.Popen[str] | None:
    if shutil.which("nvidia-smi") is None:
        return None
    query = [
        "nvidia-smi",
        "-i",
        "0",
        "--query-gpu=power.draw.instant",
        "--format=csv,noheader,nounits",
        "-lms",
        "50",
    ]
    return subprocess.Popen(query, stdout=subprocess.PIPE, text=True)


def _mean_w(smi: subprocess.Popen[str]) -> float:
    smi.terminate()
    powers = [float(line) for line in smi.communicate()[0].split()]
    return sum(powers) / len(powers)
