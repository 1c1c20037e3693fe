"""Merge a LoRA into a loaded pipeline's weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.hub import explain
from mlenergy.diffusion.weights.peft_adapter import merge_peft

_MOST_SHOWN = 3  # keys in an error's line
_DENOISERS = ("transformer", "unet")
# The end of a key, after the layer that it belongs to, in the forms of peft and diffusers.
_ENDING = re.compile(r"\.(?:lora_A|lora_B|lora\.down|lora\.up|lora_down|lora_up|alpha)(?:\.|$)")
_SIZES = re.compile(r"size mismatch for (\S+): .*?\[([\d, ]+)\].*?\[([\d, ]+)\]")


def merge_lora(pipeline: Any, lora: str, allow_pickle: bool) -> None:
    """Add the low-rank update to the weights and drop the adapter, so that a step costs what it did.

    lora: a folder with pytorch_lora_weights.safetensors, a .safetensors file, or a hub id. For a pipeline
        that diffusers has no LoRA loader for (PixArt), it is in peft's own format.

    Raises:
        UserError: the family has no LoRA, the file cannot be had, or some of its keys fit no layer.
    """
    name = type(pipeline).__name__
    if find_spec("peft") is None:
        raise UserError("--workload.lora needs the package peft; install it: pip install peft")
    if not hasattr(pipeline, "load_lora_weights"):
        if not hasattr(pipeline, "transformer"):
            raise UserError(f"diffusers has no LoRA for {name}; leave --workload.lora out")
        try:
            reason = merge_peft(pipeline, lora)
        except (ValueError, RuntimeError) as error:
            raise _unfit(lora, name, _reason(error)) from error
        if reason is not None:
            raise _unfit(lora, name, reason)
        return
    path = Path(lora).expanduser()
    is_file = path.is_file()
    if is_file and path.suffix != ".safetensors" and not allow_pickle:
        raise UserError(
            f"{lora} is not a safetensors file; convert it, or give --allow_pickle if you trust it"
        )
    options: dict[str, Any] = {"weight_name": path.name} if is_file else {}
    options["use_safetensors"] = None if allow_pickle else True
    source = str(path.parent if is_file else path if path.is_dir() else lora)
    try:
        keys = _keys(pipeline.lora_state_dict(source, **options))
        pipeline.load_lora_weights(source, **options)
    except Exception as error:  # peft and diffusers raise what they like on a file that does not fit
        raise (_unfit(lora, name, _reason(error)) if path.exists() else explain(error, lora, None)) from error
    # Diffusers only warns of keys without a layer, and merges the others.
    unplaced = _unplaced(pipeline, keys)
    if unplaced:
        raise _unfit(lora, name, f"{len(unplaced)} of its {len(keys)} keys fit no layer: {_first(unplaced)}")
    if not pipeline.get_list_adapters():
        raise _unfit(lora, name, f"none of its keys is a layer's: {_first(keys)}")
    # Merged and not kept as an adapter: an adapter adds two small products to every layer of every step.
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()


def _keys(state: Any) -> list[str]:
    """Names of the tensors, from what a pipeline reads: a dict, or one beside its scales."""
    return list(state[0] if isinstance(state, tuple) else state)


def _unplaced(pipeline: Any, keys: Sequence[str]) -> list[str]:
    """Keys of a component that the pipeline has no LoRA for, or of a layer of the denoiser that has got none.

    A key in a form that is not known here is let pass.
    """
    found = []
    for key in keys:
        component, _, rest = key.partition(".")
        layer = _ENDING.split(rest)[0]
        if layer == rest:
            continue
        unknown = component not in pipeline.components
        if unknown or (component in _DENOISERS and not _has_update(pipeline, component, layer)):
            found.append(key)
    return found


def _has_update(pipeline: Any, component: str, layer: str) -> bool:
    try:
        module = getattr(pipeline, component).get_submodule(layer)
    except AttributeError:
        return False
    return hasattr(module, "lora_A")  # peft's layer has taken the place of the model's own


def _reason(error: Exception) -> str:
    """The part of an error that is about keys, or else its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    of_keys = [line for line in lines if line.startswith("size mismatch for ")]
    if of_keys:
        return f"keys of another size: {_first([_own_size(line) for line in of_keys])}"
    return next(iter(lines), type(error).__name__)


def _own_size(line: str) -> str:
    """torch's line on one parameter, shortened: its name, its shape in the file, its shape in the model."""
    found = _SIZES.search(line)
    return line if found is None else f"{found[1]} is {found[2]}, the model's {found[3]}"


def _first(texts: Sequence[str]) -> str:
    more = len(texts) - _MOST_SHOWN
    return ", ".join(texts[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _unfit(lora: str, name: str, reason: str) -> UserError:
    return UserError(f"{lora} does not fit {name}: {reason}; give a LoRA that was made for this model")
