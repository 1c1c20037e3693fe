"""The tensors that each class of component is called with, on the meta device or a real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mlenergy.diffusion.cost.shape import SHORT_ENCODERS, short_text_tokens
from mlenergy.diffusion.cost.video_inputs import VIDEO_DENOISERS
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import Architecture, Component

_FLUX_CELLS = 2  # latent cells per token and side; FLUX's pipeline packs them before the transformer

Make = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class LatentSize:
    """Latent cells of one image, or of one video."""

    height: int
    width: int
    frames: int = 1

    @property
    def cells(self) -> int:
        """Of all frames."""
        return self.frames * self.frame

    @property
    def frame(self) -> int:
        """Of one frame."""
        return self.height * self.width


def denoiser_inputs(
    architecture: Architecture,
    rows: int,
    cells: LatentSize,
    t5_tokens: int | None,
    device: torch.device | str = "meta",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Arguments of one call of the denoiser.

    Args:
        architecture: the whole pipeline; widths of the text come from its encoders.
        rows: rows of the batch (images × guidance rows).
        cells: latent height and width, and the frames of a video.
        t5_tokens: padded length of the T5 encoder's output.
        device: where the tensors are made.
        dtype: of the floating tensors.

    Raises:
        UserError: the denoiser's class is not known here.
    """
    part = architecture.denoiser
    known: Mapping[str, Callable[..., dict[str, Any]]] = {**_DENOISERS, **VIDEO_DENOISERS}
    builder = known.get(part.class_name)
    if builder is None:
        raise UserError(
            f"the work of a {part.class_name} cannot be counted; known: {', '.join(sorted(known))}"
        )

    def make(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, device=device, dtype=dtype)

    frames = (cells.frames,) if part.class_name in VIDEO_DENOISERS else ()
    return builder(architecture, make, rows, *frames, cells.height, cells.width, t5_tokens or 0)


def text_tokens(architecture: Architecture, encoder: Component, t5_tokens: int | None) -> int:
    """Padded tokens of one text encoder's input."""
    return short_text_tokens(architecture) if encoder.class_name in SHORT_ENCODERS else t5_tokens or 0


def text_inputs(
    encoder: Component, rows: int, tokens: int, device: torch.device | str = "meta"
) -> dict[str, Any]:
    """Arguments of one call of a text encoder."""
    inputs: dict[str, Any] = {"input_ids": torch.ones((rows, tokens), device=device, dtype=torch.long)}
    if encoder.class_name == "BertModel":
        # A mask of two dimensions makes transformers look at its values, which a meta tensor has not.
        inputs["attention_mask"] = torch.zeros((rows, 1, tokens, tokens), device=device)
    return inputs


def _flux(
    architecture: Architecture, make: Make, rows: int, height: int, width: int, t5: int
) -> dict[str, Any]:
    pooled = make(rows, architecture.denoiser.config["pooled_projection_dim"])
    return _packed(architecture, make, rows, height, width, t5, axes=3) | {"pooled_projections": pooled}


def _sd3(
    architecture: Architecture, make: Make, rows: int, height: int, width: int, t5: int
) -> dict[str, Any]:
    config = architecture.denoiser.config
    return {
        "hidden_states": make(rows, config["in_channels"], height, width),
        "encoder_hidden_states": make(
            rows, short_text_tokens(architecture) + t5, config["joint_attention_dim"]
        ),
        "pooled_projections": make(rows, config["pooled_projection_dim"]),
        "timestep": make(rows),
    }


def _pixart(
    architecture: Architecture, make: Make, rows: int, height: int, width: int, t5: int
) -> dict[str, Any]:
    config = architecture.denoiser.config
    sized = config.get("use_additional_conditions")
    if sized is None:  # the class decides by the size it was trained at
        sized = config.get("sample_size") == 128
    conditions = {"resolution": make(rows, 2), "aspect_ratio": make(rows, 1)} if sized else {}
    return {
        "hidden_states": make(rows, config["in_channels"], height, width),
        "encoder_hidden_states": make(rows, t5, config["caption_channels"]),
        "encoder_attention_mask": make(rows, t5),
        "timestep": make(rows),
        "added_cond_kwargs": conditions or {"resolution": None, "aspect_ratio": None},
    }


def _sana(
    architecture: Architecture, make: Make, rows: int, height: int, width: int, t5: int
) -> dict[str, Any]:
    config = architecture.denoiser.config
    return {
        "hidden_states": make(rows, config["in_channels"], height, width),
        "encoder_hidden_states": make(rows, t5, config["caption_channels"]),
        "encoder_attention_mask": make(rows, t5),
        "timestep": make(rows),
    }


def _hunyuan(
    architecture: Architecture, make: Make, rows: int, height: int, width: int, t5: int
) -> dict[str, Any]:
    config = architecture.denoiser.config
    tokens = (height // config["patch_size"]) * (width // config["patch_size"])
    # Version 1.1 and older embed the image's size and a style, too.
    conditions: dict[str, Any] = {}
    if config.get("use_style_cond_and_image_meta_size"):
        conditions = {"image_meta_size": make(rows, 6), "style": make(rows).long()}
    rotary = make(tokens, config["attention_head_dim"]), make(tokens, config["attention_head_dim"])
    return {
        "hidden_states": make(rows, config["in_channels"], height, width),
        "timestep": make(rows),
        "encoder_hidden_states": make(rows, config["text_len"], config["cross_attention_dim"]),
        "text_embedding_mask": make(rows, config["text_len"]).bool(),
        "encoder_hidden_states_t5": make(rows, t5, config["cross_attention_dim_t5"]),
        "text_embedding_mask_t5": make(rows, t5).bool(),
        "image_rotary_emb": rotary,
        **conditions,
    }


def _unet(
    architecture: Architecture, make: Make, rows: int, height: int, width: int, t5: int
) -> dict[str, Any]:
    config = architecture.denoiser.config
    inputs: dict[str, Any] = {
        "sample": make(rows, config["in_channels"], height, width),
        "timestep": make(rows),
        "encoder_hidden_states": make(rows, short_text_tokens(architecture), config["cross_attention_dim"]),
    }
    if config.get("time_cond_proj_dim") is not None:
        inputs["timestep_cond"] = make(rows, config["time_cond_proj_dim"])
    if config.get("addition_embed_type") == "text_time":
        times = 6 * config["addition_time_embed_dim"]
        pooled = config["projection_class_embeddings_input_dim"] - times
        inputs["added_cond_kwargs"] = {"text_embeds": make(rows, pooled), "time_ids": make(rows, 6)}
    return inputs


def _flux2(
    architecture: Architecture, make: Make, rows: int, height: int, width: int, t5: int
) -> dict[str, Any]:
    return _packed(architecture, make, rows, height, width, t5, axes=4)


def _packed(
    architecture: Architecture, make: Make, rows: int, height: int, width: int, t5: int, *, axes: int
) -> dict[str, Any]:
    """Packed latents and text, each token with a position along each of `axes` axes."""
    config = architecture.denoiser.config
    tokens = (height // _FLUX_CELLS) * (width // _FLUX_CELLS)
    inputs = {
        "hidden_states": make(rows, tokens, config["in_channels"]),
        "encoder_hidden_states": make(rows, t5, config["joint_attention_dim"]),
        "timestep": make(rows),
        "img_ids": make(tokens, axes),
        "txt_ids": make(t5, axes),
    }
    if config.get("guidance_embeds"):
        inputs["guidance"] = make(rows)
    return inputs


def _qwen_image(
    architecture: Architecture, make: Make, rows: int, height: int, width: int, t5: int
) -> dict[str, Any]:
    config = architecture.denoiser.config
    high, wide = height // _FLUX_CELLS, width // _FLUX_CELLS
    return {
        "hidden_states": make(rows, high * wide, config["in_channels"]),
        "encoder_hidden_states": make(rows, t5, config["joint_attention_dim"]),
        "timestep": make(rows),
        "img_shapes": [[(1, high, wide)]] * rows,
    }


def _z_image(
    architecture: Architecture, make: Make, rows: int, height: int, width: int, t5: int
) -> dict[str, Any]:
    config = architecture.denoiser.config
    return {
        "x": [make(config["in_channels"], 1, height, width) for _ in range(rows)],
        "t": make(rows),
        "cap_feats": [make(t5, config["cap_feat_dim"]) for _ in range(rows)],
    }


def _lumina2(
    architecture: Architecture, make: Make, rows: int, height: int, width: int, t5: int
) -> dict[str, Any]:
    config = architecture.denoiser.config
    mask = make(rows, t5).as_subclass(_WholeMask)
    return {
        "hidden_states": make(rows, config["in_channels"], height, width),
        "timestep": make(rows),
        "encoder_hidden_states": make(rows, t5, config["cap_feat_dim"]),
        "encoder_attention_mask": mask,
        "return_dict": False,
    }


class _WholeMask(torch.Tensor):
    """A mask of texts without padding, whose lengths are known where its values are not."""

    def sum(self, dim: int = 1) -> torch.Tensor:  # type: ignore[override]  # as Lumina 2 asks for lengths
        return torch.full((self.shape[0],), self.shape[dim])


_DENOISERS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "FluxTransformer2DModel": _flux,
    "SD3Transformer2DModel": _sd3,
    "PixArtTransformer2DModel": _pixart,
    "HunyuanDiT2DModel": _hunyuan,
    "SanaTransformer2DModel": _sana,
    "UNet2DConditionModel": _unet,
    "Flux2Transformer2DModel": _flux2,
    "QwenImageTransformer2DModel": _qwen_image,
    "ZImageTransformer2DModel": _z_image,
    "Lumina2Transformer2DModel": _lumina2,
}
