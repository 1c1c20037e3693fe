"""The work of a plan, and one rank's share of it in rows, cells, tokens and layers. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.models.facts import clip_tokens, latent_channels, latent_factor, patch_size
from mlenergy.diffusion.models.families import FAMILIES

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.models.architectures.reader import Architecture

_DEFAULT_T5_TOKENS = 256
# Tokens of a text that is as long as its prompt, before anything has run: prompts of 25 to 50 words.
ASSUMED_TEXT_TOKENS = 64
# Text encoders of one length, whatever length a call asks for; the others take that one.
SHORT_ENCODERS = frozenset({"CLIPTextModel", "CLIPTextModelWithProjection", "BertModel"})


@dataclass(frozen=True)
class Workload:
    """One call of a pipeline.

    images: of the whole call, over all data-parallel groups.
    guidance_rows: rows of the denoiser's batch for each image: 2 under classifier-free guidance.
    text_passes: how often each text encoder is called: 2 where the negative prompt is encoded, too.
    t5_tokens: padded length of the long text encoder; None where the pipeline has none.
    template_tokens: before each prompt and before each negative prompt, in the long text encoder alone.
    """

    height_px: int
    width_px: int
    images: int
    guidance_rows: int
    text_passes: int
    t5_tokens: int | None
    template_tokens: tuple[int, int] = (0, 0)
    padded_tokens: int | None = None  # that the encoder reads where the denoiser gets fewer

    @property
    def encoded_tokens(self) -> tuple[int, ...]:
        """Tokens of the long text encoder's input, pass by pass: the prompts, then the negative prompts."""
        read = self.t5_tokens if self.padded_tokens is None else self.padded_tokens
        return tuple((read or 0) + before for before in self.template_tokens[: self.text_passes])


def workload_of(plan: Plan, architecture: Architecture, text_tokens: float | None = None) -> Workload:
    """The work of one iteration of `plan`.

    text_tokens: of the mean row that the denoiser was given, where the text is as long as the prompt; None
        before a run: assumed.
    """
    family = FAMILIES[architecture.pipeline_class]
    padded = tokens = t5_tokens(architecture, plan.max_sequence_length)
    if not family.pads_text and padded is not None:
        step = family.sequence_step or 1
        tokens = min(-(-round(text_tokens or ASSUMED_TEXT_TOKENS) // step) * step, padded)
    guided = plan.runs_guidance_batch
    # SDXL takes zeros, not an encoded empty prompt, where no negative prompt is given.
    zeros = bool(architecture.options.get("force_zeros_for_empty_prompt")) and plan.negative_prompt is None
    return Workload(
        height_px=plan.height_px,
        width_px=plan.width_px,
        images=plan.batch_size,
        guidance_rows=2 if guided else 1,
        text_passes=2 if guided and not zeros else 1,
        t5_tokens=tokens,
        template_tokens=family.template_tokens,
        padded_tokens=padded if family.encoder_pads_text else None,
    )


def t5_tokens(architecture: Architecture, max_sequence_length: int | None) -> int | None:
    """Padded length of the T5 encoder's input, which is the denoiser's, too; None where neither takes one.

    SD3's pipeline puts zeros of this length where its folder has no T5.
    """
    fixed = architecture.denoiser.config.get("text_len_t5")  # HunyuanDiT's denoiser is built for one length
    if fixed is not None:
        return int(fixed)
    if not FAMILIES[architecture.pipeline_class].takes_text_length:
        return None
    return max_sequence_length if max_sequence_length is not None else _DEFAULT_T5_TOKENS


@dataclass(frozen=True)
class Attention:
    """The denoiser's attention: layers over image and text together, and over the image alone."""

    width: int
    joint_layers: int
    image_layers: int

    @property
    def layers(self) -> int:
        """Attentions of one call."""
        return self.joint_layers + self.image_layers


@dataclass(frozen=True)
class Shape:
    """The whole call and one rank's share of it."""

    workload: Workload
    cells: int  # of one image, or of all latent frames of one video, as the denoiser takes them
    decoded_cells: int  # of those that are decoded: some denoisers take frames in pairs
    frame_cells: int  # of one latent frame
    text_tokens: int  # of the denoiser's text input
    images_per_rank: float
    rows_per_rank: float  # of the denoiser's batch
    sequence: int  # ranks that share one sequence
    attention: Attention | None  # None: a U-Net, whose work no engine splits by sequence
    latent_channels: int
    cells_per_token: int

    @property
    def image_tokens(self) -> int:
        """Tokens of one image."""
        return self.cells // self.cells_per_token

    @property
    def joint_tokens(self) -> int:
        """Tokens of one image and its text."""
        return self.image_tokens + self.text_tokens


def shape_of(plan: Plan, architecture: Architecture, text_tokens: float | None = None) -> Shape:
    """Sizes of `plan` for the rank that has most to do; text_tokens as in `workload_of`."""
    workload = workload_of(plan, architecture, text_tokens)
    vae = architecture.components["vae"].config
    factor = latent_factor(vae)
    area = (plan.height_px // factor) * (plan.width_px // factor)
    patch = patch_size(FAMILIES[architecture.pipeline_class], architecture.denoiser.config)
    parallel = plan.parallel
    images = plan.batch_size / parallel.data
    return Shape(
        workload=workload,
        cells=plan.denoised_frames * area,
        decoded_cells=plan.latent_frames * area,
        frame_cells=area,
        text_tokens=denoiser_text_tokens(architecture, workload.t5_tokens),
        images_per_rank=images,
        rows_per_rank=images * workload.guidance_rows / parallel.cfg,
        sequence=parallel.sequence,
        attention=attention_of(architecture),
        latent_channels=latent_channels(vae) or 0,
        cells_per_token=patch * patch * plan.spec.patch_frames,
    )


def denoiser_text_tokens(architecture: Architecture, t5_tokens: int | None) -> int:
    """Text tokens that join the image in the denoiser; SD3 puts CLIP's before T5's."""
    family = FAMILIES[architecture.pipeline_class]
    return (short_text_tokens(architecture) if family.clip_in_sequence else 0) + (t5_tokens or 0)


def short_text_tokens(architecture: Architecture) -> int:
    """Padded tokens of the encoders that are no T5: CLIP's positions, or those of HunyuanDiT's denoiser."""
    built_for = architecture.denoiser.config.get("text_len")
    encoders = architecture.text_encoders
    short = next((encoder for encoder in encoders if encoder.class_name in SHORT_ENCODERS), encoders[0])
    return int(built_for or clip_tokens(short.config))


def attention_of(architecture: Architecture) -> Attention | None:
    """Width and layers by the denoiser's configuration; None for a U-Net.

    Its sources are the classes' forwards in diffusers 0.42.1: FLUX has one attention over both in
    each block of either kind, SD3 one in each block and, where `dual_attention_layers` names it,
    one over the image; PixArt and HunyuanDiT attend over the image and take text by cross-attention.
    """
    config: Any = architecture.denoiser.config
    name = architecture.denoiser.class_name
    if name == "UNet2DConditionModel":
        return None
    if name == "ZImageTransformer2DModel":
        # Its two refiners, of the image alone and of the text alone, together see about what one layer does.
        return Attention(int(config["dim"]), config["n_layers"] + config["n_refiner_layers"], 0)
    if name == "Lumina2Transformer2DModel":
        # Keys and values have fewer heads than queries: what is sent is at most what stands here.
        return Attention(int(config["hidden_size"]), config["num_layers"], config["num_refiner_layers"])
    width = int(config["num_attention_heads"] * config["attention_head_dim"])
    if name in (
        *("FluxTransformer2DModel", "Flux2Transformer2DModel"),
        "HunyuanVideoTransformer3DModel",  # its refiner, of the text alone, is left out
    ):
        return Attention(width, config["num_layers"] + config["num_single_layers"], 0)
    if name in ("QwenImageTransformer2DModel", "CogVideoXTransformer3DModel"):
        return Attention(width, config["num_layers"], 0)
    if name == "SD3Transformer2DModel":
        return Attention(width, config["num_layers"], len(config.get("dual_attention_layers") or ()))
    return Attention(width, 0, config["num_layers"])
