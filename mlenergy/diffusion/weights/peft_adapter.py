"""Merge a LoRA in peft's own format, for pipelines that have no loader of LoRA weights, such as PixArt's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.hub import explain

ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def merge_peft(pipeline: Any, lora: str) -> str | None:
    """Add an adapter's update to the denoiser's weights, and drop the adapter.

    lora: a folder with adapter_config.json and adapter_model.safetensors, the latter file, or a hub id.

    Returns:
        The reason why it does not fit; None where it was merged.

    Raises:
        UserError: the files cannot be had.
        ValueError, RuntimeError: its layers or sizes are not the model's.
    """
    from peft import LoraConfig, PeftConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    folder = _folder(lora)
    config = PeftConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        return f"it is a {config.peft_type} adapter, not a LoRA"
    config.inference_mode = True
    tensors = load_file(folder / ADAPTER)
    adapted = get_peft_model(pipeline.transformer, config)
    result: Any = set_peft_model_state_dict(adapted, tensors)
    names = [*result.unexpected_keys, *(name for name in result.missing_keys if "lora_" in name)]
    if names:
        return f"{len(names)} of its keys fit no layer, or are missing: {', '.join(names[:3])}"
    pipeline.transformer = adapted.merge_and_unload()
    # merge_and_unload leaves the record of the adapter on the model, which save_pretrained would read.
    if hasattr(pipeline.transformer, "peft_config"):
        del pipeline.transformer.peft_config
    return None


def _folder(lora: str) -> Path:
    """The folder of an adapter; from the hub only its two files travel.

    Raises:
        UserError: a file is missing, or there is no such repository.
    """
    path = Path(lora).expanduser()
    if path.is_file():
        path = path.parent
    if not path.exists():
        from huggingface_hub import snapshot_download

        try:
            path = Path(snapshot_download(lora, allow_patterns=[ADAPTER, CONFIG]))
        except Exception as error:
            raise explain(error, lora, None) from error
    lacking = [name for name in (CONFIG, ADAPTER) if not (path / name).is_file()]
    if lacking:
        raise UserError(
            f"{lora} has no {' and no '.join(lacking)}; give a LoRA in peft's format, "
            "such as mlenergy finetune writes"
        )
    return path
