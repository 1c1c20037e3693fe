"""The options of `mlenergy finetune`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mlenergy.diffusion.config.args import SECONDS
from mlenergy.diffusion.config.option import Range
from mlenergy.diffusion.config.parser import option_group
from mlenergy.diffusion.config.workloads import MOST_SEED, PIXELS

PROG = "mlenergy finetune"
COUNT = Range(least=1, most=100_000_000)
POSITIVE = Range(above=0, most=1e9)
SHARE_OFF = Range(least=0, below=1)

Precision = Literal["no", "fp16", "bf16"]
RateSchedule = Literal["constant", "linear", "cosine"]


@option_group("training")
@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Length and rate of the training."""

    steps: Annotated[int, COUNT] = 1000
    """Steps of the optimizer."""
    batch_size: Annotated[int, COUNT] = 1
    """Images of a process in one forward."""
    gradient_accumulation: Annotated[int, COUNT] = 1
    """Forwards of a process in one step."""
    learning_rate: Annotated[float, POSITIVE] = 1e-4
    """Learning rate of AdamW, after the warm-up."""
    lr_schedule: RateSchedule = "constant"
    """constant, or falling to 0 at the last step: linear, cosine."""
    lr_warmup_steps: Annotated[int, Range(least=0, most=100_000_000)] = 0
    """Steps in which the learning rate rises linearly from 0."""
    weight_decay: Annotated[float, Range(least=0, most=1e6)] = 0.01
    """Weight decay of AdamW."""
    max_grad_norm: Annotated[float, POSITIVE] = 1.0
    """Norm to which longer gradients are cut."""
    caption_dropout: Annotated[float, SHARE_OFF] = 0.1
    """Share of the images whose caption is left empty, for classifier-free guidance."""
    seed: Annotated[int, Range(least=0, most=MOST_SEED)] = 42
    """Seed of the order, the noise, the timesteps and the first LoRA weights."""
    mixed_precision: Precision | None = None
    """Type of the frozen weights and of the computation; LoRA weights and the VAE are float32. Default: bf16
    on GPUs, no (float32) elsewhere."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, slower."""


@option_group("LoRA")
@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Shape of the low-rank update."""

    rank: Annotated[int, Range(least=1, most=65_536)] = 16
    """Rank of the update of each layer."""
    alpha: Annotated[int | None, Range(least=1, most=65_536)] = None
    """The update is scaled by alpha / rank. Default: the rank."""
    lora_dropout: Annotated[float, SHARE_OFF] = 0.0
    """Dropout before the update."""
    targets: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LAYER [LAYER ...]")] = (
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
    )
    """Ends of the names of the transformer's layers that are trained."""


@option_group("files")
@dataclass(frozen=True, kw_only=True)
class FilesOptions:
    """The model, the images and the folder of the LoRA."""

    model_id: str
    """A PixArt model: listed id (see mlenergy models), another hub id, or local folder."""
    dataset: Path
    """Folder of images with metadata.jsonl, such as mlenergy dataset prepare writes."""
    out: Path
    """Folder for the LoRA, its checkpoints and training.json. An interrupted training goes on from it."""
    revision: str | None = None
    """Branch, tag or commit of the model on the hub. Default: its main branch."""
    height: Annotated[int | None, PIXELS] = None
    """Image height in pixels; images are cropped around their centre. Default: the model's."""
    width: Annotated[int | None, PIXELS] = None
    """Image width in pixels. Default: the model's."""
    checkpoint_every: Annotated[int, COUNT] = 500
    """Steps after which the state is saved. The last two are kept."""
    log_every: Annotated[int, COUNT] = 10
    """Steps of a measured window, after each of which a line is printed."""


@option_group("measuring")
@dataclass(frozen=True, kw_only=True)
class EnergyOptions:
    """Device, and reading of energy."""

    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Kind of device. auto: NVIDIA GPUs if torch can use them, else Apple's GPU, else the CPU."""
    energy_gpus: Annotated[tuple[str, ...], tyro.conf.arg(metavar="GPU [GPU ...]")] = ()
    """GPUs whose energy is read, as nvidia-smi indices, UUIDs, or all. Default: those that the ranks use."""
    require_energy: bool = False
    """Refuse to train, before the model loads, if GPU energy cannot be read."""
    sample_period_s: Annotated[float, Range(least=0.001, most=3600.0)] = 0.1
    """Seconds between two samples of power."""
    idle_s: Annotated[float, SECONDS] = 2.0
    """Seconds for which the GPUs' idle power is sampled before the model loads; 0: not at all."""
    debug: bool = False
    """Show Python tracebacks instead of one-line errors."""


@dataclass(frozen=True, kw_only=True)
class FinetuneArgs(EnergyOptions, LoraOptions, TrainingOptions, FilesOptions):
    """Train LoRA weights of a PixArt model on images with captions, and measure it.

    Several GPUs: torchrun --nproc_per_node=N -m mlenergy.diffusion finetune OPTIONS
    """
