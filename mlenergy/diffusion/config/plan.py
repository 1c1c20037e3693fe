"""A run as it is resolved: data, and what follows from it alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.presets import Preset
from mlenergy.diffusion.environment.device import DeviceType
from mlenergy.diffusion.models.next_scale import Schedule, tokens_of
from mlenergy.diffusion.models.spec import Dtype, EngineName, ModelSpec, WeightsKind, is_tiny

PromptOrder = Literal["shuffled", "file"]


@dataclass(frozen=True)
class Plan:
    """Exactly what a run does: every default resolved, every explicit value kept."""

    spec: ModelSpec
    weights_from: str  # folder, or hub id, that from_pretrained is given
    revision: str | None
    engine: EngineName
    device: DeviceType
    device_name: str  # "NVIDIA H200", or the CPU's model
    parallel: Parallelism
    dtype: Dtype
    batch_size: int  # images an iteration, over all data-parallel groups
    height_px: int
    width_px: int
    steps: int
    guidance_scale: float | None
    negative_prompt: str | None
    max_sequence_length: int | None
    seed: int
    dataset: str
    prompt_column: str
    prompt_prefix: str
    warmup_iters: int
    benchmark_iters: int
    save_images: bool
    base_dir: str
    target_ci: float | None = None  # half-width of the 95 % interval over the mean
    max_iters: int = 100  # under target_ci
    energy_gpus: tuple[str, ...] = ()  # empty: those that the ranks use
    power_limit_w: float | None = None
    use_resolution_binning: bool = False  # PixArt, HunyuanDiT: go to the nearest trained size and back
    variant: str | None = None  # weight files' variant, such as fp16
    lora: str | None = None  # LoRA weights: a folder, a file or a hub id
    allow_pickle: bool = False  # load weights that are not safetensors
    trust_remote_code: bool = False
    optimizations: Optimizations = field(default_factory=Optimizations)
    weights: WeightsKind = "pretrained"
    prompt_order: PromptOrder = "shuffled"
    class_ids: tuple[int, ...] | None = None  # of a class-conditional model, in turn; None: by the seed
    top_k: int | None = None  # most likely tokens that each one is drawn from; None: no tokens are drawn
    top_p: float | None = None  # probability of those together
    num_frames: int | None = None  # of a video; None: images
    fps: int | None = None
    guidance_scale_2: float | None = None  # of the second denoiser, where there are two
    boundary_ratio: float | None = None  # share of the training steps from which it takes over
    save_latents: bool = False
    # No part of the set-up: the same run as with the options that it has come to.
    preset: Preset | None = field(default=None, compare=False)

    @property
    def has_random_weights(self) -> bool:
        """True where its images say nothing of quality."""
        return self.weights == "random" or is_tiny(self.spec.model_id)

    @property
    def most_iters(self) -> int:
        """Measured iterations that there may be."""
        return self.benchmark_iters if self.target_ci is None else self.max_iters

    @property
    def tokens(self) -> int:
        """Tokens of one image or video in the denoiser; of next-scale prediction over all scales."""
        if self.schedule is not None:
            return tokens_of(self.schedule)
        token_px = self.spec.latent_factor * self.spec.patch_size
        frames = self.denoised_frames // self.spec.patch_frames
        return frames * (self.height_px // token_px) * (self.width_px // token_px)

    @property
    def makes_video(self) -> bool:
        """True where its outputs are videos."""
        return self.spec.family.makes_video

    @property
    def denoised_frames(self) -> int:
        """Latent frames of an output in the denoiser, filled up to whole tokens (CogVideoX 1.5: two each)."""
        patch = self.spec.patch_frames
        return -(-self.latent_frames // patch) * patch

    @property
    def latent_frames(self) -> int:
        """Frames of the latents of one output; 1 of an image."""
        return 1 if self.num_frames is None else (self.num_frames - 1) // self.spec.frame_factor + 1

    @property
    def schedule(self) -> Schedule | None:
        """Rows and columns of the tokens at each scale; None for a model that predicts none of that size."""
        model = self.spec.next_scale
        return None if model is None else model.schedules.get((self.height_px, self.width_px))

    @property
    def is_class_conditional(self) -> bool:
        """True where a class steers the image, and no prompt."""
        return self.spec.family.condition == "class"

    @property
    def token_rows(self) -> int:
        """Rows of image tokens of one image in the denoiser."""
        return self.height_px // (self.spec.latent_factor * self.spec.patch_size)

    @property
    def text_tokens_in_sequence(self) -> int:
        """Text tokens that are split along with the image's; 0 where the text is not in the sequence."""
        family = self.spec.family
        if not family.text_tokens_in_sequence:
            return 0
        clip = self.spec.clip_tokens if family.clip_in_sequence else 0
        return clip + (self.max_sequence_length or 0)

    @property
    def runs_guidance_batch(self) -> bool:
        """True where the denoiser computes every step with and without the prompt."""
        unguided = self.spec.family.unguided_scale
        return self.spec.guidance == "classifier-free" and (self.guidance_scale or 0) > unguided

    @property
    def denoiser_calls_each_step(self) -> int:
        """Calls of the denoiser on a rank in a step: guidance may be a second one, which ranks may share."""
        separate = self.spec.family.separate_guidance and self.runs_guidance_batch
        return 2 if separate and self.parallel.cfg == 1 else 1

    @property
    def weights_kind(self) -> WeightsKind:
        """The weights as results name them: a tiny model's are random, too."""
        return "random" if self.has_random_weights else "pretrained"

    @property
    def approximation(self) -> str | None:
        """The reason why the images are not exactly those of one rank; None where they are."""
        patches, stale = self.parallel.pipeline_patches, self.steps - self.parallel.pipefusion_warmup_steps
        if self.engine != "xdit" or self.parallel.pipefusion == 1 or patches == 1 or stale <= 0:
            return None
        return (
            f"PipeFusion with {patches} patches: {stale} of {self.steps} steps use activations "
            "of the step before"
        )
