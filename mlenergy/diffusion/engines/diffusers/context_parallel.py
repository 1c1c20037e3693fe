"""Diffusers' own context parallelism (Ulysses, ring, both) on one image's token sequence."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from diffusers import ContextParallelConfig
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput

from mlenergy.diffusion.config.attention import ATTENTION
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.engines.diffusers.mesh import MeshPosition
from mlenergy.diffusion.engines.diffusers.routing import route_self_attention
from mlenergy.diffusion.engines.optimizations.attention import use_backend

_TOKENS_OUT = {0: ContextParallelInput(split_dim=1, expected_dims=3, split_output=True)}
_ROTARY = ContextParallelInput(split_dim=0, expected_dims=2)
# Faults of diffusers 0.42.1 that are passed by here, by name; tests show each without what is done here.
KNOWN_FAULTS = {
    "ltx-text-split": (
        "LTX-Video's plan splits the text and its mask, too: rings attend to a part of the text and say "
        "nothing, and Ulysses crashes (issue 14316)"
    ),
}
_PATCHES = {"pos_embed": _TOKENS_OUT, "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3)}

_TOKENS_IN = ContextParallelInput(split_dim=1, expected_dims=3)
_LTX_ROTARY = {axis: ContextParallelInput(split_dim=1, expected_dims=3, split_output=True) for axis in (0, 1)}

# Denoiser class -> where its sequence is split and gathered; None: it brings a plan of its own.
_SPLITS: dict[str, dict[str, Any] | None] = {
    "FluxTransformer2DModel": None,
    "Flux2Transformer2DModel": None,
    "QwenImageTransformer2DModel": None,
    "WanTransformer3DModel": None,
    # As its own plan, without the text and its mask (KNOWN_FAULTS): they stay whole.
    "LTXVideoTransformer3DModel": {
        "": {"hidden_states": _TOKENS_IN},
        "rope": _LTX_ROTARY,
        "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3),
    },
    "SD3Transformer2DModel": {**_PATCHES, "context_embedder": _TOKENS_OUT},
    "PixArtTransformer2DModel": _PATCHES,
    "HunyuanDiT2DModel": {**_PATCHES, "": {"image_rotary_emb": [_ROTARY, _ROTARY]}},
}
# Denoiser class -> names of cross-attention modules that would share keys which every rank holds.
_LOCAL_ATTENTION = {"LTXVideoTransformer3DModel": ("attn2",)}
# Denoiser class -> names of the attention modules whose keys are split too. Cross-attention to
# a text that every rank holds needs no exchange. FLUX dispatches its attention itself.
_SELF_ATTENTION = {
    "SD3Transformer2DModel": ("attn", "attn2"),
    "PixArtTransformer2DModel": ("attn1",),
    "HunyuanDiT2DModel": ("attn1",),
}


def enable_context_parallel(denoiser: Any, plan: Plan, position: MeshPosition) -> dict[str, Any]:
    """Split the sequence of `denoiser` over the ring and Ulysses ranks; returns facts for the results.

    The degrees are those that config/checks/ let pass.
    """
    name = type(denoiser).__name__
    if name in _SELF_ATTENTION:
        route_self_attention(denoiser, _SELF_ATTENTION[name])
    use_backend(denoiser, _backend(plan))
    with _adapted(plan):
        config = _config(plan, position)
        denoiser.enable_parallelism(config=config, cp_plan=_SPLITS[name])
    for path, module in denoiser.named_modules():
        if path.rpartition(".")[2] in _LOCAL_ATTENTION.get(name, ()):
            module.processor._parallel_config = None
    if not plan.spec.family.pads_text:
        _share_each_text(denoiser, plan, config)
        return {"text_shared_unevenly": None}  # by call: texts are as long as their prompts
    return {"text_shared_unevenly": _is_uneven(plan)}


def _share_each_text(denoiser: Any, plan: Plan, config: ContextParallelConfig) -> None:
    """Decide call by call: only a text that the ranks do not divide is shared in the slower way."""

    def look(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        uneven = kwargs["encoder_hidden_states"].shape[1] % plan.parallel.sequence != 0
        config.ulysses_anything = uneven and plan.parallel.ring == 1
        config.ring_anything = uneven and plan.parallel.ulysses == 1

    denoiser.register_forward_pre_hook(look, with_kwargs=True, prepend=True)


def _config(plan: Plan, position: MeshPosition) -> ContextParallelConfig:
    parallel, uneven = plan.parallel, _is_uneven(plan)
    return ContextParallelConfig(
        ring_degree=parallel.ring,
        ulysses_degree=parallel.ulysses,
        mesh=position.mesh,
        # Slower, as ranks tell each other their lengths in every layer: only where it must be.
        ulysses_anything=uneven and parallel.ring == 1,
        ring_anything=uneven and parallel.ulysses == 1,
    )


def _is_uneven(plan: Plan) -> bool:
    return plan.text_tokens_in_sequence % plan.parallel.sequence != 0


def _backend(plan: Plan) -> str:
    name = plan.optimizations.attention
    asked = None if name == "auto" else ATTENTION[name].diffusers
    if asked is not None:
        return asked
    if plan.parallel.ring == 1 or plan.device == "cpu":
        return "native"
    return "_native_flash"  # part of torch, and it returns the log-sum-exp that "native" keeps


def _adapted(plan: Plan) -> Any:
    if plan.device != "cpu":
        return nullcontext()
    from mlenergy.diffusion.engines.diffusers import cpu

    cpu.give_log_sum_exp()
    return cpu.countable_device()
