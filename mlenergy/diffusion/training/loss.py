"""The loss of noise prediction, with a pipeline's own components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from PIL import Image, ImageOps

from mlenergy.diffusion.dataset.captions import UnusableRow
from mlenergy.diffusion.dataset.images import decoded
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.training.samples import Draw


@dataclass(frozen=True)
class NoiseLoss:
    """Mean squared error of the predicted noise (Ho et al. 2020, eq. 14), or of what the scheduler says.

    pipeline: PixArt; nothing of it is trained here.
    height_px, width_px: of every image.
    text_tokens: that captions are padded to.
    """

    pipeline: Any
    scheduler: DDPMScheduler
    height_px: int
    width_px: int
    text_tokens: int

    @classmethod
    def of(cls, pipeline: Any, height_px: int, width_px: int, text_tokens: int) -> NoiseLoss:
        """With the noise schedule and the prediction type of the pipeline's own scheduler."""
        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        return cls(pipeline, scheduler, height_px, width_px, text_tokens)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image's latents."""
        factor = self.pipeline.vae_scale_factor
        channels = int(self.pipeline.vae.config.latent_channels)
        return channels, self.height_px // factor, self.width_px // factor

    @property
    def timesteps(self) -> int:
        """Number of noise levels."""
        return int(self.scheduler.config.num_train_timesteps)

    def __call__(
        self, transformer: Any, files: Sequence[Path], captions: Sequence[str], draws: Sequence[Draw]
    ) -> torch.Tensor:
        """The mean loss of a batch, a float32 scalar.

        transformer: the pipeline's, or what wraps it; called once.
        files, captions, draws: one an image; a caption that is dropped is the empty one.

        Raises:
            UserError: an image cannot be read.
        """
        device = self.pipeline.transformer.device
        with torch.no_grad():
            latents = self.latents(files, draws)
            texts = [
                "" if one.drops_caption else caption for caption, one in zip(captions, draws, strict=True)
            ]
            embeds, mask = self._embeddings(texts, device)
        noise = torch.stack([one.noise for one in draws]).to(device)
        timesteps = torch.tensor([one.timestep for one in draws], device=device)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        predicted = transformer(
            noisy.to(embeds.dtype),
            encoder_hidden_states=embeds,
            encoder_attention_mask=mask,
            timestep=timesteps,
            added_cond_kwargs=self._size_conditions(len(files), embeds.dtype, device),
            return_dict=False,
        )[0]
        channels = latents.shape[1]
        if predicted.shape[1] == 2 * channels:  # the noise and its variance, which is not trained
            predicted = predicted[:, :channels]
        target = self.target(latents, noise, timesteps)
        return torch.nn.functional.mse_loss(predicted.float(), target.float())

    def latents(self, files: Sequence[Path], draws: Sequence[Draw]) -> torch.Tensor:
        """Scaled latents of images, (n, *latent_shape), float32, sampled from the VAE's distribution.

        Raises:
            UserError: an image cannot be read.
        """
        vae = self.pipeline.vae
        pixels = torch.stack([self._pixels(file) for file in files]).to(vae.device, vae.dtype)
        distribution = vae.encode(pixels).latent_dist
        noise = torch.stack([one.latent_noise for one in draws]).to(vae.device)
        return (distribution.mean + distribution.std * noise).float() * vae.config.scaling_factor  # type: ignore[no-any-return]

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The tensor that the model should predict, by the scheduler's prediction type."""
        kind = self.scheduler.config.prediction_type
        if kind == "epsilon":
            return noise
        if kind == "v_prediction":
            return self.scheduler.get_velocity(latents, noise, timesteps)  # type: ignore[no-any-return]
        if kind == "sample":
            return latents
        raise UserError(f"the scheduler's prediction_type {kind} cannot be trained; use a model with epsilon")

    def _pixels(self, file: Path) -> torch.Tensor:
        """An image as (3, height, width) in [-1, 1], cropped around its centre."""
        try:
            image = decoded(file)
        except UnusableRow as error:
            raise UserError(f"{file}: {error}; correct or remove it") from error
        if image.size != (self.width_px, self.height_px):
            image = ImageOps.fit(image, (self.width_px, self.height_px), method=Image.Resampling.LANCZOS)
        array = np.asarray(image, dtype=np.float32)
        return torch.from_numpy(array / 127.5 - 1).permute(2, 0, 1)

    def _embeddings(self, texts: Sequence[str], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        embeds, mask, *_ = self.pipeline.encode_prompt(
            list(texts),
            do_classifier_free_guidance=False,
            device=device,
            clean_caption=False,
            max_sequence_length=self.text_tokens,
        )
        return embeds, mask

    def _size_conditions(
        self, count: int, dtype: torch.dtype, device: torch.device
    ) -> dict[str, torch.Tensor | None]:
        """The sizes that PixArt-alpha's 1024 models are told, as its pipeline does."""
        if not self.pipeline.transformer.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        size = torch.tensor([[self.height_px, self.width_px]], dtype=dtype, device=device)
        ratio = torch.tensor([[self.height_px / self.width_px]], dtype=dtype, device=device)
        return {"resolution": size.repeat(count, 1), "aspect_ratio": ratio.repeat(count, 1)}
