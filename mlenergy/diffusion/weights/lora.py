"""Merge a LoRA into a loaded pipeline's weights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.hub import explain


def merge_lora(pipeline: Any, lora: str, allow_pickle: bool) -> None:
    """Add the low-rank update to the weights and drop the adapter, so that a step costs what it did.

    lora: a folder with pytorch_lora_weights.safetensors, a .safetensors file, or a hub id.

    Raises:
        UserError: the family has no LoRA, the file cannot be had, or it fits none of the layers.
    """
    name = type(pipeline).__name__
    if not hasattr(pipeline, "load_lora_weights"):
        raise UserError(f"diffusers has no LoRA for {name}; leave --workload.lora out")
    if find_spec("peft") is None:
        raise UserError("--workload.lora needs the package peft; install it: pip install peft")
    path = Path(lora).expanduser()
    is_file = path.is_file()
    if is_file and path.suffix != ".safetensors" and not allow_pickle:
        raise UserError(
            f"{lora} is not a safetensors file; convert it, or give --allow_pickle if you trust it"
        )
    options = {"weight_name": path.name} if is_file else {}
    try:
        pipeline.load_lora_weights(
            str(path.parent if is_file else path if path.is_dir() else lora),
            use_safetensors=None if allow_pickle else True,
            **options,
        )
    except Exception as error:  # peft and diffusers raise what they like on a file that does not fit
        raise (_unfit(lora, name, error) if path.exists() else explain(error, lora, None)) from error
    if not pipeline.get_list_adapters():  # diffusers only warns when no key of the file fits a layer
        raise _unfit(lora, name, None)
    # Merged and not kept as an adapter: an adapter adds two small products to every layer of every step.
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()


def _unfit(lora: str, name: str, error: Exception | None) -> UserError:
    reason = (
        next(iter(str(error).strip().splitlines()), "") if error else "none of its layers is in the model"
    )
    return UserError(f"{lora} does not fit {name} ({reason}); give a LoRA that was made for this model")
