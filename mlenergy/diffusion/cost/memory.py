"""Bytes on the fullest rank: weights, and the peak of activations stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.cost.costs import BYTES, ComponentCosts, check_predictable, costs_of
from mlenergy.diffusion.cost.decoder_parts import Tiling, tiling_of
from mlenergy.diffusion.cost.next_scale import image_costs
from mlenergy.diffusion.cost.shape import Shape, denoiser_text_tokens, shape_of
from mlenergy.diffusion.environment.gpus import GIB
from mlenergy.diffusion.models.architectures.reader import find_architecture
from mlenergy.diffusion.models.facts import latent_factor
from mlenergy.diffusion.models.spec import Dtype

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.models.architectures.reader import Architecture
    from mlenergy.diffusion.models.spec import Stage

# A CUDA context with its libraries and their workspaces, outside of torch's allocator; an
# assumption from NVIDIA's own GPUs of the last generations, not measured by this project.
CONTEXT_BYTES = GIB
_COLOURS = 3


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the rank that holds most."""

    parameter_bytes: dict[str, int]  # component -> on this rank
    activation_bytes: dict[Stage, int]  # peak of what it makes
    peak_bytes: int  # weights and the largest stage: what torch's allocator is expected to report
    peak_stage: Stage
    context_bytes: int
    fits: bool | None  # None: no GPU memory was given to compare with
    leaves_out: tuple[str, ...] = ()  # options that take less memory than this says

    @property
    def total_parameter_bytes(self) -> int:
        """All components."""
        return sum(self.parameter_bytes.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "total_parameter_bytes": self.total_parameter_bytes}


def estimate_memory(plan: Plan) -> MemoryEstimate:
    """Memory of the rank that holds most; `fits` is None.

    An architecture that this package does not ship is counted by a child process the first time,
    which takes some seconds.

    Raises:
        UserError: the model's architecture is unknown or cannot be counted.
    """
    if plan.spec.next_scale is not None:
        return memory_of_scales(plan, None)
    check_predictable(plan)
    model = find_architecture(plan.weights_from, plan.revision)
    return memory_of(plan, model, costs_of(model), shape_of(plan, model), None)


def memory_of(
    plan: Plan,
    architecture: Architecture,
    costs: Mapping[str, ComponentCosts],
    shape: Shape,
    gpu_memory_gib: float | None,
) -> MemoryEstimate:
    """Estimate for the fullest rank of `plan`.

    Ranks of sequence, CFG and data parallelism hold all weights; PipeFusion and tensor parallelism
    split the denoiser's repeated blocks. Stages follow one another, so the largest counts.
    """
    weights = _weights(plan, architecture, costs)
    stages: dict[Stage, int] = {
        "text_encode": _text_bytes(plan, architecture, costs, shape),
        "denoise": _denoise_bytes(plan, architecture, costs, shape),
        "vae_decode": _decode_bytes(plan, architecture, costs, shape),
    }
    return replace(
        _estimate(weights, stages, gpu_memory_gib), leaves_out=left_out_of_memory(plan, architecture)
    )


def left_out_of_memory(plan: Plan, architecture: Architecture) -> tuple[str, ...]:
    """Options of a plan whose effect on memory is not in its estimate."""
    known = {"--vae_slicing"}
    if tiling_of(architecture.components["vae"]) is not None:
        known.add("--vae_tiling")
    return tuple(option for option in plan.optimizations.memory_options if option not in known)


def memory_of_scales(plan: Plan, gpu_memory_gib: float | None) -> MemoryEstimate:
    """Estimate for a rank of a model that predicts scales; it holds all weights and its own images."""
    costs, images = image_costs(plan), plan.batch_size // plan.parallel.data
    weights = {name: count * BYTES[plan.dtype] for name, count in costs.parameters.items()}
    stages = {stage: round(images * size) for stage, size in costs.activation_bytes.items()}
    return _estimate(weights, stages, gpu_memory_gib)


def _estimate(
    weights: dict[str, int], stages: dict[Stage, int], gpu_memory_gib: float | None
) -> MemoryEstimate:
    stage = max(stages, key=lambda name: stages[name])
    peak = sum(weights.values()) + stages[stage]
    room = None if gpu_memory_gib is None else gpu_memory_gib * GIB
    fits = None if room is None else peak + CONTEXT_BYTES <= room
    return MemoryEstimate(weights, stages, peak, stage, CONTEXT_BYTES, fits)


def _weights(plan: Plan, architecture: Architecture, costs: Mapping[str, ComponentCosts]) -> dict[str, int]:
    share = 1 / (plan.parallel.pipefusion * plan.parallel.tensor)
    denoisers = plan.spec.family.denoisers
    return {
        name: part.parameter_bytes(
            _vae_dtype(plan) if name == "vae" else plan.dtype, share if name in denoisers else 1.0
        )
        for name, part in costs.items()
    }


def _text_bytes(
    plan: Plan, architecture: Architecture, costs: Mapping[str, ComponentCosts], shape: Shape
) -> int:
    item = BYTES[plan.dtype]
    text = max(shape.workload.encoded_tokens)
    return max(
        costs[encoder.name].activation_bytes_at(shape.images_per_rank, 0, text, item)
        for encoder in architecture.text_encoders
    )


def _denoise_bytes(
    plan: Plan, architecture: Architecture, costs: Mapping[str, ComponentCosts], shape: Shape
) -> int:
    """Activations of the rank's share of the tokens, what its modes keep beside them, and the text.

    PipeFusion keeps key and value of every token for its own layers (arXiv:2405.14430); its
    activations are those of a whole image in its first, synchronous steps.
    """
    item, ranks = BYTES[plan.dtype], shape.sequence
    text = shape.workload.t5_tokens or 0
    own = costs[architecture.denoiser.name].activation_bytes_at(
        shape.rows_per_rank, shape.cells / ranks, text / ranks, item
    )
    embeddings = shape.workload.guidance_rows * shape.images_per_rank * _text_width(architecture) * item
    beside = round(embeddings * denoiser_text_tokens(architecture, shape.workload.t5_tokens))
    attention = shape.attention
    if attention is None:
        return own + beside
    tensor = shape.rows_per_rank * shape.joint_tokens / ranks * attention.width * item
    in_flight = 4 * tensor if ranks > 1 else 0
    layers = attention.layers / plan.parallel.pipefusion
    cached = 2 * tensor * layers if plan.parallel.pipefusion > 1 else 0
    return own + beside + round(in_flight + cached)


def _vae_dtype(plan: Plan) -> Dtype:
    """Type that the VAE is held in."""
    asked = plan.optimizations.vae_dtype
    return plan.dtype if asked == "own" else asked


def _decode_bytes(
    plan: Plan, architecture: Architecture, costs: Mapping[str, ComponentCosts], shape: Shape
) -> int:
    """All images of the group at once, or in the slices and tiles that are asked for, in the VAE's type.

    SDXL's pipeline casts float16 to float32.
    """
    vae, held = costs["vae"], _vae_dtype(plan)
    upcast = (
        held == "float16"
        and plan.optimizations.vae_dtype == "own"
        and plan.spec.family.upcasts_vae
        and bool(architecture.components["vae"].config.get("force_upcast", True))
    )
    runs_in: Dtype = "float32" if upcast else held
    item = BYTES[runs_in]
    ranks = plan.parallel.world_size // plan.parallel.data if plan.parallel.parallel_vae else 1
    images, tiles = shape.images_per_rank, decoded_tiles(plan, architecture)
    sliced = min(images, 1.0) if plan.optimizations.vae_slicing else images
    size = latent_size(plan, architecture)
    share = 1 / ranks if tiles is None else tiles.largest(*size) / shape.frame_cells
    peak: float = vae.activation_bytes_at(
        sliced, shape.decoded_cells * share, 0, item, shape.frame_cells * share
    )
    pixels = (plan.num_frames or 1) * plan.height_px * plan.width_px * _COLOURS * item  # of one image
    if tiles is not None:
        # All tiles are kept until the last one is there; then rows are made of them, and the frames of rows.
        kept = sliced * pixels * tiles.ratio(*size)
        peak = max(peak + kept - sliced * pixels * share, kept + 2 * sliced * pixels)
    if sliced < images:
        peak = max(peak + (images - sliced) * pixels, 2 * images * pixels)
    wider = vae.parameter_bytes(runs_in) - vae.parameter_bytes(held)
    return round(peak) + wider


def decoded_tiles(plan: Plan, architecture: Architecture) -> Tiling | None:
    """Tiles that each frame is decoded in; None where it is decoded whole, or its tiles are not known."""
    if not plan.optimizations.vae_tiling:
        return None
    tiles = tiling_of(architecture.components["vae"])
    return tiles if tiles is not None and tiles.is_cut(*latent_size(plan, architecture)) else None


def latent_size(plan: Plan, architecture: Architecture) -> tuple[int, int]:
    """Height and width of a frame in latent cells."""
    factor = latent_factor(architecture.components["vae"].config)
    return plan.height_px // factor, plan.width_px // factor


def _text_width(architecture: Architecture) -> int:
    config = architecture.denoiser.config
    for key in (
        "joint_attention_dim",
        "caption_channels",
        "cross_attention_dim_t5",
        "cross_attention_dim",
        "text_dim",
        "text_embed_dim",
    ):
        if isinstance(config.get(key), int):
            return int(config[key])
    return 0
