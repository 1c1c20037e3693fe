"""A model and its family, as data: no torch here, so that a dry run answers at once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mlenergy.diffusion.models.next_scale import NextScale

Dtype = Literal["float32", "float16", "bfloat16"]
Output = Literal["image", "video"]
EngineName = Literal["xdit", "diffusers", "autoregressive"]
# In the order in which they are preferred where several can do it.
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
WeightsKind = Literal["pretrained", "random"]

# How a family uses its guidance scale:
#   none            the model takes no guidance at all (timestep-distilled)
#   embedded        the scale is an input of the denoiser, one forward a step
#   classifier-free two forwards a step (one batch of twice the size) when scale > 1
#   unknown         the pipeline takes a scale, and nothing more is known of it (the generic family)
Guidance = Literal["none", "embedded", "classifier-free", "unknown"]

# A parallel mode's name, as used in Family.modes, the plan and the capability table.
Mode = Literal["ulysses", "ring", "cfg", "data", "pipefusion", "parallel-vae", "tensor"]

# Work of one call of a pipeline, in order. What lies in none of them is "other": a remainder, no stage.
Stage = Literal["text_encode", "denoise", "vae_decode"]
STAGES: tuple[Stage, ...] = get_args(Stage)


# Caches over steps: what earlier steps computed is used again.
CacheMethod = Literal["fbcache", "teacache", "magcache", "taylorseer", "pab", "fastercache"]


@dataclass(frozen=True)
class Family:
    """Facts that the models of one pipeline class have in common, and that none of their files says."""

    name: str
    pipeline_class: str  # diffusers' class name; what model_index.json says
    denoiser: Literal["transformer", "unet"]
    predicts: Literal["flow", "noise", "scales"]  # noise stands for velocity, too; scales: next-scale tokens
    text_encoders: tuple[str, ...]  # component names, in call order
    modes: Mapping[EngineName, frozenset[Mode]]  # offered by each engine that has the pipeline
    caches: Mapping[EngineName, frozenset[CacheMethod]]  # offered by each engine that has any
    has_t5: bool  # one of the text encoders is a T5
    text_tokens_in_sequence: bool = False  # text joins the image tokens in self-attention
    clip_in_sequence: bool = False  # CLIP's tokens stand there before those of the T5
    packed_cells: int | None = (
        None  # cells per token and side, where the pipeline packs them; None: configured
    )
    size_step_px: int = 8  # its call refuses heights and widths that are no multiples of this
    only_latent_factor: int | None = None  # that its call can run; None: the VAE's own, whatever it is
    takes_text_length: bool = False  # its call takes max_sequence_length
    bins_resolution: bool = False  # its call can go to the nearest trained size and back
    cleans_captions: bool = False  # its call rewrites prompts, unless it is told not to
    patches_beside_sequence: bool = True  # PipeFusion's several patches go together with Ulysses and ring
    paired_stages: bool = False  # later layers take what their earlier partners hand over
    trains_lora: bool = False  # mlenergy finetune knows how
    decodes_over_time: bool = False  # its VAE is one of videos, though it makes images
    upcasts_vae: bool = False  # a float16 pipeline decodes in float32, where the VAE's file says so
    is_generic: bool = False  # nothing is known but components and call: work is counted as it runs
    counts_as_run: bool = (
        False  # FLOPs are known only once a text has run: no file says what its denoiser reads
    )
    # Its denoiser in diffusers computes queries, keys and values by one product once it is told to. That
    # layers are fused is not enough: LTX's are, and its attention goes on reading the old ones (0.42.1).
    fuses_qkv: bool = False
    has_cost_model: bool = True  # its memory and work are predicted from its architecture
    takes_attention_kernel: bool = True  # a kernel can be chosen for its denoiser's attention
    # Tokens that its pipeline writes before a prompt and before a negative prompt, on top of the text length.
    template_tokens: tuple[int, int] = (0, 0)
    reasons: Mapping[Mode, str] = field(default_factory=dict)  # why a mode that one may expect is not offered
    condition: Literal["text", "class"] = "text"  # what steers the image; a class: prompts do not
    unguided_scale: float = 1.0  # the largest guidance scale that runs no guidance batch
    guidance_argument: str = "guidance_scale"  # the name of classifier-free guidance's scale in its call
    takes_negative_prompt: bool = True
    default_negative: str | None = None  # where none is given; without one its call runs no guidance
    separate_guidance: bool = False  # a second call of the denoiser, not a second half of its batch
    pads_text: bool = True  # to one length for all prompts; else a batch's texts are as long as its longest
    encoder_pads_text: bool = False  # its encoder reads the padded length all the same, before it is cut off
    guiders: tuple[str, ...] = ()  # components that hold the guidance scale, in the place of an argument
    # Component that published folders lack -> the repository and the class that it comes from.
    parts_from: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    gives_sigmas: bool = False  # its call hands the scheduler noise levels, which only Euler's takes
    square_cells: int | None = None  # its call scales every size to the area of a square of so many cells
    # Engine -> modes under which its attention sees the padding of a batch's shorter texts: one row a rank.
    unmasked_modes: Mapping[EngineName, frozenset[Mode]] = field(default_factory=dict)
    sequence_step: int | None = None  # its denoiser pads sequences to multiples of this, which degrees divide
    output: Output = "image"
    frames_argument: str = "num_frames"  # the name of a video's frames in its call
    takes_frame_rate: bool = False  # its call takes frame_rate, which its denoiser reads
    shares_rows: bool = True  # ranks share a sequence by whole rows of tokens; False: by tokens
    cuts_text: bool = False  # a denoiser that shares a sequence leaves the text's padding out of it
    always_guided: bool = False  # xfuser's pipeline shares no sequence without the guidance batch
    frame_step: int = 1  # frames after the first come in multiples of this, or of the VAE's factor
    second_denoiser: str | None = None  # component that takes over at low noise, in models that have one
    arguments: Mapping[str, Any] = field(
        default_factory=dict
    )  # of its call, where its defaults are not meant
    decoders: tuple[str, ...] = ("vae",)  # components that decode, in call order
    decodes_one: bool = False  # its VAE fails on a batch, which has to be sliced
    tiles_alone: bool = False  # its VAE decodes in tiles, and not otherwise
    makes_sound: bool = False  # its call returns sound beside the video: computed, and not written
    conditioned_latents: bool = False  # its denoiser is given in_channels, the latents' among them
    fixed_frames: bool = False  # it makes the model's own number of frames, or one
    # Key of the denoiser's configuration -> the value that models of this family have; others are generic.
    configured: Mapping[str, Any] = field(default_factory=dict)
    # Module and class under xfuser.model_executor.models.transformers that takes the denoiser's place in
    # diffusers' own pipeline; None: xfuser wraps the whole pipeline, if it has it.
    exchanged_transformer: str | None = None

    @property
    def stages(self) -> Mapping[str, Stage]:
        """Stage that each component works in; one that works in none (a safety checker) is left out."""
        encoders = ("class_embedding",) if self.condition == "class" else self.text_encoders
        stages: dict[str, Stage] = dict.fromkeys(encoders, "text_encode")
        stages |= dict.fromkeys(self.denoisers, "denoise")
        return stages | dict.fromkeys(self.decoders, "vae_decode")

    @property
    def denoisers(self) -> tuple[str, ...]:
        """Names of the components that denoise, the one of high noise first."""
        return (self.denoiser,) if self.second_denoiser is None else (self.denoiser, self.second_denoiser)

    @property
    def makes_video(self) -> bool:
        """True where its outputs are videos."""
        return self.output == "video"


@dataclass(frozen=True)
class ModelSpec:
    """One model: where it is, what it is by default, what its shape allows."""

    model_id: str
    family: Family
    guidance: Guidance
    default_steps: int
    default_guidance_scale: float | None  # None where guidance is "none"
    default_dtype: Dtype
    default_height_px: int
    default_width_px: int
    default_max_sequence_length: int | None  # text tokens; None: the family fixes it
    max_sequence_length_limit: int | None
    heads: int | None  # attention heads of the denoiser; None: not known before loading
    kv_heads: int | None = None  # of its keys, where heads share them; None: as many
    layers: int | None = None  # denoiser blocks, where pipeline splitting needs them
    latent_factor: int = 8  # pixels per latent cell and side
    patch_size: int = 2  # latent cells per token and side
    clip_tokens: int = 77  # that a prompt is padded to before CLIP
    parameters: int | None = None  # of the whole pipeline, published or counted
    dual_attention: bool = False  # SD3.5-medium: a second self-attention in some blocks
    gated: bool = False  # the hub asks for a token
    next_scale: NextScale | None = None  # scales, classes and files of an autoregressive model
    source: str = ""  # where the numbers come from
    text_length_is_fixed: bool = False  # positions are laid out for the default length alone
    text_step: int = 1  # text lengths are multiples of this
    default_num_frames: int | None = None  # of a video
    default_fps: int | None = None
    frame_factor: int = 1  # frames per latent frame, but for the first of a video, which has one of its own
    patch_frames: int = 1  # latent frames per token
    default_guidance_scale_2: float | None = None  # of the second denoiser
    default_boundary_ratio: float | None = None  # share of the training steps from which it takes over

    @property
    def size_multiple_px(self) -> int:
        """Number of pixels that heights and widths are multiples of."""
        return math.lcm(self.family.size_step_px, self.latent_factor * self.patch_size)

    @property
    def default_dataset(self) -> str:
        """Source of the prompts: the package's own for a tiny model, which is to run without a network.

        Of a class-conditional model no prompts: its classes.
        """
        if self.family.condition == "class":
            return "classes"
        if self.family.makes_video:
            return "bundled-videos" if is_tiny(self.model_id) else "evalcrafter"
        return "bundled" if is_tiny(self.model_id) else "open-image-preferences"


def is_tiny(model_id: str) -> bool:
    """True for the id of a tiny random pipeline, a known one or not."""
    return model_id.startswith("tiny/")
