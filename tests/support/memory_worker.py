"""Measures one window whose denoiser keeps 64 MiB a step until the VAE starts; prints its memory as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

import torch
from torch import nn

from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engine import Batch, Generated
from mlenergy.diffusion.measure.energy.meter import MeterOptions, build_meter
from mlenergy.diffusion.measure.memory import MemoryWatch
from mlenergy.diffusion.measure.session import Instruments, Schedule, measure
from mlenergy.diffusion.measure.stages import StageProbe
from mlenergy.diffusion.models.families import FLUX

CPU = torch.device("cpu")
STEPS, BYTES_A_STEP = 3, 64 << 20


class Part(nn.Module):
    """A component with 100 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(100))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return given


class Vae(Part):
    """A VAE: decode, and a decoder inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = Part()

    def decode(self, given: torch.Tensor) -> torch.Tensor:
        return self.decoder(given)


def main() -> None:
    """Measure and print."""
    text, denoiser, vae = Part(), Part(), Vae()
    kept: list[torch.Tensor] = []
    denoiser.register_forward_hook(lambda *_: kept.append(torch.ones(BYTES_A_STEP, dtype=torch.uint8)))
    vae.decoder.register_forward_pre_hook(lambda *_: kept.clear())

    def generate(_batch: Batch) -> Generated:
        image = torch.full((1, 3, 4, 6), 0.5)
        text(image)
        for _ in range(STEPS):
            denoiser(image)
        return Generated(vae.decode(image))

    components = {"text_encoder": text, "transformer": denoiser, "vae": vae}
    alone = Cluster(Rank(hostname="here"), CPU, None)
    instruments = Instruments(
        build_meter(alone, None, None, MeterOptions()),
        StageProbe(components, FLUX.stages, STEPS, CPU),
        MemoryWatch(CPU, components),
    )
    batch = Batch(prompts=("a red fox",), seeds=(0,))
    measured, _ = measure(generate, Schedule(warmup=[], measured=[batch]), instruments, alone)
    (memory,) = measured.memory
    print(json.dumps({**asdict(memory), "kept_bytes": STEPS * BYTES_A_STEP}))


main()
