"""The generic family: any pipeline of diffusers from text to images or videos, by its files and its call.

Known are its components, their stages, and the defaults of its call. All else (tokens, guidance, the sizes
that it takes) is not claimed: no mode that splits an image is offered, and FLOPs are counted as they run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.facts import frame_factor, latent_factor
from mlenergy.diffusion.models.hub import ModelFolder
from mlenergy.diffusion.models.signature import REQUIRED, call_of
from mlenergy.diffusion.models.spec import Family, ModelSpec

NAME = "generic"
_NEEDED = ("prompt", "height", "width", "num_inference_steps", "generator", "output_type")
_OF_VIDEOS = ("num_frames", "video_length", "frame_rate")  # arguments of the pipelines that make videos
_FRAMES = ("num_frames", "video_length")
_TILES_ALONE = frozenset(
    {"AutoencoderKLAllegro"}
)  # of diffusers 0.42.1, which lacks their decoding as a whole
_SIDE_PX = 1024  # where neither the call nor the denoiser names a size
_VIDEO_PX = (480, 832)  # likewise
_FPS = 10  # the default of diffusers' export_to_video


def generic_spec(model_id: str, model: ModelFolder, families: str) -> ModelSpec:
    """The spec of a pipeline that no family knows.

    Args:
        model_id: as the user gave it.
        model: its folder or repository.
        families: the pipeline classes that are known, for the message.

    Raises:
        UserError: it is no text-to-image pipeline of the installed diffusers, or its parts are not those
            that a stage is known of.
    """
    class_name = str(model.index["_class_name"])
    call = call_of(class_name)
    reason = _against(class_name, call, model)
    if reason is not None or call is None:
        raise UserError(
            f"{model_id} is a {class_name}, which is not supported: {reason}; supported: {families}"
        )
    denoiser = _denoiser(model)
    frames = _frames_argument(call)
    height_px, width_px = _size_px(call, model, denoiser, is_video=frames is not None)
    length = call.get("max_sequence_length")
    scale = call.get("guidance_scale")
    return ModelSpec(
        model_id=str(Path(model_id).resolve()) if Path(model_id).is_dir() else model_id,
        family=_family(class_name, call, model, denoiser),
        guidance="unknown" if isinstance(scale, int | float) else "none",
        default_steps=call["num_inference_steps"] if isinstance(call["num_inference_steps"], int) else 50,
        default_guidance_scale=float(scale) if isinstance(scale, int | float) else None,
        default_dtype="bfloat16" if denoiser == "transformer" else "float16",
        default_height_px=height_px,
        default_width_px=width_px,
        default_max_sequence_length=length if isinstance(length, int) else None,
        max_sequence_length_limit=length if isinstance(length, int) else None,
        heads=None,
        latent_factor=1,
        patch_size=1,
        default_num_frames=None if frames is None else _default_frames(call[frames], model, denoiser),
        default_fps=None if frames is None else round(call.get("frame_rate") or _FPS),
        source=f"the call of diffusers' {class_name} and the model's own configuration",
    )


def _against(class_name: str, call: Mapping[str, Any] | None, model: ModelFolder) -> str | None:
    """The reason why the pipeline cannot be run without knowing more of it; None where it can."""
    if call is None:
        return f"the installed diffusers has no pipeline {class_name} with a call of its own"
    lacking = [name for name in _NEEDED if name not in call]
    if lacking:
        return f"its call takes no {lacking[0]}, so it is no text-to-image pipeline"
    if any(name in call for name in _OF_VIDEOS) and _frames_argument(call) is None:
        return "it makes videos, and its call takes no number of frames"
    wanted = [name for name, default in call.items() if default is REQUIRED and name not in _NEEDED]
    if wanted:
        return f"its call wants {wanted[0]} beside the prompt"
    names = set(model.loaded_components)
    if "image" in call and not {"text_encoder"} & names:
        return "it reads an image and no text"
    denoisers = [name for name in names if name.startswith(("transformer", "unet", "prior", "decoder"))]
    if len(denoisers) != 1 or denoisers[0] not in ("transformer", "unet"):
        found = ", ".join(sorted(denoisers)) or "none"
        return f"its denoiser is not one component, transformer or unet, but {found}"
    for needed in ("vae", "scheduler", "text_encoder"):
        if needed not in names:
            return f"it has no component {needed}"
    return None


def _denoiser(model: ModelFolder) -> Literal["transformer", "unet"]:
    return "unet" if "unet" in model.loaded_components else "transformer"


def _family(
    class_name: str, call: Mapping[str, Any], model: ModelFolder, denoiser: Literal["transformer", "unet"]
) -> Family:
    parts = model.loaded_components
    encoders = tuple(name for name in parts if name.startswith("text_encoder"))
    flow = parts["scheduler"][1].startswith("FlowMatch")
    frames = _frames_argument(call)
    return Family(
        name=NAME,
        pipeline_class=class_name,
        denoiser=denoiser,
        predicts="flow" if flow else "noise",
        text_encoders=encoders,
        modes={"diffusers": frozenset({"data"})},
        caches={},
        has_t5=any("T5" in parts[name][1] for name in encoders),
        size_step_px=1,
        takes_text_length=isinstance(call.get("max_sequence_length"), int),
        bins_resolution="use_resolution_binning" in call,
        cleans_captions="clean_caption" in call,
        takes_attention_kernel=False,
        output="image" if frames is None else "video",
        frames_argument=frames or "num_frames",
        takes_frame_rate="frame_rate" in call,
        tiles_alone=parts["vae"][1] in _TILES_ALONE,
        is_generic=True,
        counts_as_run=True,
        has_cost_model=False,
    )


def _frames_argument(call: Mapping[str, Any]) -> str | None:
    """Name of the argument that counts a video's frames; None for images."""
    return next((name for name in _FRAMES if name in call), None)


def _default_frames(named: object, model: ModelFolder, denoiser: str) -> int:
    """Frames of a video: the call's, or what the denoiser's sample_frames stands for (latent frames)."""
    if isinstance(named, int):
        return named
    latent = model.component_config(denoiser).get("sample_frames")
    return latent * frame_factor(model.component_config("vae")) if isinstance(latent, int) else 1


def _size_px(
    call: Mapping[str, Any], model: ModelFolder, denoiser: str, *, is_video: bool
) -> tuple[int, int]:
    """Height and width: the call's, or what the denoiser's configuration stands for."""
    side_px = _side_px(model, denoiser)
    height_px, width_px = _video_px(model, denoiser) if is_video else (side_px, side_px)
    height, width = call["height"], call["width"]
    return height if isinstance(height, int) else height_px, width if isinstance(width, int) else width_px


def _video_px(model: ModelFolder, denoiser: str) -> tuple[int, int]:
    """Height and width that the denoiser's sample_height and sample_width, in latent cells, stand for."""
    config, vae = model.component_config(denoiser), model.component_config("vae")
    height, width = config.get("sample_height"), config.get("sample_width")
    if not (isinstance(height, int) and isinstance(width, int) and "block_out_channels" in vae):
        return _VIDEO_PX
    return height * latent_factor(vae), width * latent_factor(vae)


def _side_px(model: ModelFolder, denoiser: str) -> int:
    """Pixels a side: what the denoiser's sample_size stands for, as most pipelines read it."""
    cells = model.component_config(denoiser).get("sample_size")
    vae = model.component_config("vae")
    blocks = vae.get("block_out_channels") or vae.get("encoder_block_out_channels")
    if not isinstance(cells, int) or not isinstance(blocks, list):
        return _SIDE_PX
    return int(cells * 2 ** (len(blocks) - 1))
