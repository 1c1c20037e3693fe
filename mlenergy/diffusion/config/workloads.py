"""The workloads: what is generated, from which prompts, into which folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from mlenergy.diffusion.config.option import MayBeEmpty, Range
from mlenergy.diffusion.config.parser import option_group
from mlenergy.diffusion.config.plan import PromptOrder
from mlenergy.diffusion.models.spec import Dtype, WeightsKind

BATCH = Range(least=1, most=65_536)  # images or videos
FRAMES = Range(least=1, most=65_536)
FPS = Range(least=1, most=1000)
PIXELS = Range(least=1, most=65_536)
CLASSES = Range(least=0, most=1_000_000)
# Image i gets seed + i, which generators and readers of JSON take as a signed 64-bit number.
MOST_SEED = 2**62


@option_group(prefixed=True)
@dataclass(frozen=True)
class Request:
    """Options of every workload: a model, its prompts, sizes and steps."""

    model_id: str
    """A listed id (mlenergy models), another hub id, a folder, or tiny/flux: random weights, for a CPU."""
    base_dir: str
    """Folder in which the result folder is created."""
    batch_size: Annotated[int, BATCH] = 1
    """Images or videos per iteration, over all data-parallel groups."""
    height: Annotated[int | None, PIXELS] = None
    """Height in pixels. Default: the model's."""
    width: Annotated[int | None, PIXELS] = None
    """Width in pixels. Default: the model's."""
    inference_steps: Annotated[int | None, Range(least=1, most=10_000)] = None
    """Denoising steps. Default: the model's."""
    guidance_scale: Annotated[float | None, Range(least=0, most=1000)] = None
    """Guidance scale; refused for models that take none. Default: the model's."""
    negative_prompt: Annotated[str | None, MayBeEmpty()] = None
    """Negative prompt for all; only for models with classifier-free guidance. Default: none."""
    max_sequence_length: Annotated[int | None, Range(least=1, most=1_000_000)] = None
    """Text tokens that the T5-type encoder pads to. Default: the model's."""
    weights: WeightsKind = "pretrained"
    """pretrained: the model's own. random: seeded random values in the model's published architecture at full
    size, without a download; or in that of a folder with only configurations and tokenizers."""
    dtype: Dtype | None = None
    """Floating-point type of weights and computation. Default: the model's."""
    seed: Annotated[int, Range(least=0, most=MOST_SEED)] = 42
    """Seed of the prompt sampling; image or video i gets noise from seed + i."""
    dataset: str | None = None
    """Source of the prompts: open-image-preferences, evalcrafter (videos), bundled, bundled-videos, a hub id,
    or a folder or file (Parquet, JSON, JSONL, CSV, TXT). Default: the first two; for tiny/ models bundled."""
    prompt_column: str = "prompt"
    """Column of the dataset that holds the prompts."""
    prompt_order: PromptOrder = "shuffled"
    """shuffled by the seed, each once before any repeats; file: in the source's order, once."""
    prompt_prefix: str = ""
    """Text put before every prompt. Default: none."""
    revision: str | None = None
    """Branch, tag or commit of the model on the hub. Default: its main branch."""
    variant: str | None = None
    """Variant of the weight files, such as fp16. Default: none."""
    lora: str | None = None
    """LoRA weights to load into the model: a folder, a safetensors file, or a hub id. Default: none."""
    allow_pickle: bool = False
    """Also load weights other than safetensors files. Such files can run code: only for sources you trust."""
    trust_remote_code: bool = False
    """Also load pipelines that bring code of their own, which runs on this machine: only for sources you
    trust."""


@option_group(prefixed=True)
@dataclass(frozen=True)
class TextToImage(Request):
    """Generate images from text prompts."""

    base_dir: str = "run/diffusion/text-to-image"
    """Folder in which the result folder is created."""
    use_resolution_binning: bool = False
    """PixArt and HunyuanDiT: generate at the nearest trained size and scale to the requested one."""
    class_ids: Annotated[tuple[int, ...], CLASSES, tyro.conf.arg(metavar="ID [ID ...]")] = ()
    """VAR: classes of the images, in turn. Default: by the seed."""
    top_k: Annotated[int | None, Range(least=1, most=1_000_000)] = None
    """VAR, Infinity: tokens are drawn of the K most likely ones."""
    top_p: Annotated[float | None, Range(above=0, most=1)] = None
    """VAR, Infinity: and of these up to the probability P."""


@option_group(prefixed=True)
@dataclass(frozen=True)
class TextToVideo(Request):
    """Generate videos from text prompts."""

    base_dir: str = "run/diffusion/text-to-video"
    """Folder in which the result folder is created."""
    num_frames: Annotated[int | None, FRAMES] = None
    """Frames of a video. Default: the model's."""
    fps: Annotated[int | None, FPS] = None
    """Frames per second of the video that is written; some models (LTX) take it as an input, too.
    Default: the model's."""
    guidance_scale_2: Annotated[float | None, Range(least=0, most=1000)] = None
    """Guidance scale of the second transformer, where a model has two (Wan 2.2). Default: the model's."""
    boundary_ratio: Annotated[float | None, Range(least=0, most=1)] = None
    """Noise level, as a share of the training steps, below which the second transformer takes over, where a
    model has two (Wan 2.2). Default: the model's."""


Workload = (
    Annotated[TextToImage, tyro.conf.subcommand("text-to-image", is_default=True)]
    | Annotated[TextToImage, tyro.conf.subcommand("t2i", description="Short for text-to-image.")]
    | Annotated[TextToVideo, tyro.conf.subcommand("text-to-video")]
    | Annotated[TextToVideo, tyro.conf.subcommand("t2v", description="Short for text-to-video.")]
)
