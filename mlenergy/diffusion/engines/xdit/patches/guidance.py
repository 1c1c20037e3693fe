"""Guidance scales of 1 and less: one forward a step, where xfuser always takes the guided path.

xfuser doubles the image batch though the text is not doubled (SD3, PixArt: an error), or
returns the denoiser's input as its output (HunyuanDiT: a wrong image).
"""

from __future__ import annotations

from typing import Any

import torch

from mlenergy.diffusion.engines.xdit.patches.patch import Patch


def forwards_without_guidance() -> list[Patch]:
    """Each guided family's forward of one step, for calls without guidance."""
    from xfuser import (
        xFuserHunyuanDiTPipeline,
        xFuserPixArtAlphaPipeline,
        xFuserPixArtSigmaPipeline,
        xFuserStableDiffusion3Pipeline,
    )

    return [
        Patch(xFuserStableDiffusion3Pipeline, "_backbone_forward", _sd3),
        Patch(xFuserPixArtAlphaPipeline, "_backbone_forward", _pixart),
        Patch(xFuserPixArtSigmaPipeline, "_backbone_forward", _pixart),
        Patch(xFuserHunyuanDiTPipeline, "_backbone_forward", _hunyuandit),
    ]


def _sd3(original: Any) -> Any:
    def forward(
        self: Any, latents: Any, encoder_hidden_states: Any, pooled_prompt_embeds: Any, t: Any
    ) -> Any:
        if self.do_classifier_free_guidance:
            return original(self, latents, encoder_hidden_states, pooled_prompt_embeds, t)
        return self.transformer(
            hidden_states=latents,
            timestep=t.expand(latents.shape[0]),
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_prompt_embeds,
            joint_attention_kwargs=self.joint_attention_kwargs,
            return_dict=False,
        )[0]

    return forward


def _pixart(original: Any) -> Any:
    def forward(self: Any, latents: Any, *args: Any, guidance_scale: float, t: Any, **inputs: Any) -> Any:
        from xfuser.core.distributed import is_pipeline_first_stage, is_pipeline_last_stage

        if guidance_scale > 1:
            return original(self, latents, *args, guidance_scale=guidance_scale, t=t, **inputs)
        if is_pipeline_first_stage():
            latents = self.scheduler.scale_model_input(latents, t)
        output = self.transformer(
            latents,
            encoder_hidden_states=inputs["prompt_embeds"],
            encoder_attention_mask=inputs["prompt_attention_mask"],
            timestep=torch.as_tensor(t, device=latents.device).expand(latents.shape[0]),
            added_cond_kwargs=inputs["added_cond_kwargs"],
            return_dict=False,
        )[0]
        return _noise_part(self, output) if is_pipeline_last_stage() else output

    return forward


def _noise_part(pipeline: Any, output: torch.Tensor) -> torch.Tensor:
    """Without the variance that some models predict in a second half of the channels."""
    config = pipeline.transformer.config
    return output.chunk(2, dim=1)[0] if config.out_channels // 2 == config.in_channels else output


def _hunyuandit(original: Any) -> Any:
    def forward(self: Any, latents: Any, *, t: Any, device: Any, skips: Any, **inputs: Any) -> Any:
        from xfuser.core.distributed import is_pipeline_first_stage, is_pipeline_last_stage

        if self.do_classifier_free_guidance:
            return original(self, latents, t=t, device=device, skips=skips, **inputs)
        if is_pipeline_first_stage():
            latents = self.scheduler.scale_model_input(latents, t)
        output = self.transformer(
            latents,
            torch.tensor([t] * latents.shape[0], device=device).to(dtype=latents.dtype),
            encoder_hidden_states=inputs["prompt_embeds"],
            text_embedding_mask=inputs["prompt_attention_mask"],
            encoder_hidden_states_t5=inputs["prompt_embeds_2"],
            text_embedding_mask_t5=inputs["prompt_attention_mask_2"],
            image_meta_size=inputs["add_time_ids"],
            style=inputs["style"],
            image_rotary_emb=inputs["image_rotary_emb"],
            skips=skips,
            return_dict=False,
        )[0]
        return output.chunk(2, dim=1)[0] if is_pipeline_last_stage() else output

    return forward
