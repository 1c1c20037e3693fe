"""Loads an engine as a case wants it: without a patch, with blinded attention, with a shifted slice."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from parity_case import Case

from mlenergy.diffusion import engines
from mlenergy.diffusion.weights import pipeline as loading

_IMAGE_ATTENTION = ("attn", "attn1", "attn2")


@contextmanager
def as_the_case_wants(case: Case) -> Iterator[None]:
    """Change what is loaded inside the block."""
    with ExitStack() as changes:
        if case.blind:
            load = functools.partial(_load_blinded, loading.load)
            changes.enter_context(mock.patch.object(loading, "load", load))
        if case.refused:
            changes.enter_context(mock.patch.object(engines, "check_plan", lambda plan: None))
        if case.engine == "diffusers" and "ltx-text-split" in case.without_patches:
            from mlenergy.diffusion.engines.diffusers import context_parallel

            own: dict[str, Any] = {"LTXVideoTransformer3DModel": None}
            changes.enter_context(mock.patch.dict(context_parallel._SPLITS, own))
            changes.enter_context(mock.patch.dict(context_parallel._LOCAL_ATTENTION, clear=True))
        if case.engine == "xdit":
            from mlenergy.diffusion.engines.xdit import setup

            apply = functools.partial(setup.apply_patches, case.without_patches)
            changes.enter_context(mock.patch.object(setup, "apply_patches", apply))
        yield


def _load_blinded(load: Any, folder: Any, plan: Any, device: Any) -> Any:
    pipeline = load(folder, plan, device)
    blind(pipeline, joint_second=plan.spec.family.name == "sd3")
    return pipeline


def blind(pipeline: Any, joint_second: bool) -> None:
    """Keys and values of image tokens become the same for all of them.

    No token then learns anything of another one, so that PipeFusion's stale activations cannot
    matter: what is left to differ is whether each patch meets its own messages, noise and step.

    joint_second: the second attention of a block (attn2) is over the image, too, and not over the text alone.
    """
    for name, module in pipeline.transformer.named_modules():
        cross = name.endswith("attn2") and not hasattr(module, "add_k_proj") and not joint_second
        if name.rpartition(".")[2] in _IMAGE_ATTENTION and not cross:
            with torch.no_grad():
                if hasattr(
                    module, "to_qkv_mlp_proj"
                ):  # FLUX.2's single stream: rows of query, key, value, MLP
                    module.to_qkv_mlp_proj.weight[module.inner_dim : 3 * module.inner_dim].zero_()
                    continue
                module.to_k.weight.zero_()
                module.to_v.weight.zero_()


def shift_slice(engine: Any) -> None:
    """Break this rank on purpose: its part of the image's tokens is shifted by one."""
    pipeline = engine._wrapper
    sliced = pipeline._init_sync_pipeline

    def shifted(latents: torch.Tensor, *others: Any) -> Any:
        first, *rest = sliced(latents, *others)
        return first.roll(1, dims=-2), *rest

    pipeline._init_sync_pipeline = shifted
