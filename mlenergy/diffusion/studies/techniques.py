"""The techniques of the tiers, as data: what each changes of the baseline's options. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Options = Mapping[str, Any]

# Models distilled from others, of the same pipeline class, with the steps of their cards.
DISTILLED: dict[str, str] = {
    "black-forest-labs/FLUX.1-dev": "black-forest-labs/FLUX.1-schnell",
    "stabilityai/stable-diffusion-xl-base-1.0": "stabilityai/sdxl-turbo",
    "stabilityai/stable-diffusion-3.5-large": "stabilityai/stable-diffusion-3.5-large-turbo",
    "stabilityai/stable-diffusion-2-1": "stabilityai/sd-turbo",
    "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers": "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers-Distilled",
}


@dataclass(frozen=True)
class Technique:
    """A way to make a run faster or smaller.

    is_stacked: part of the tier's stack. Of two that set the same option, the first that runs is taken.
    """

    name: str
    tier: int
    options: Options
    is_stacked: bool = False
    is_quick: bool = False  # part of --quick


def techniques(steps: int, distilled: str | None) -> list[Technique]:
    """All techniques, tier by tier.

    The solvers of higher order take fewer steps than the baseline: DDIM and Euler half of them, DPM-Solver++
    and UniPC two in five (20 of 50, the order of what Lu et al. 2022 and Zhao et al. 2023 recommend).

    Args:
        steps: of the baseline.
        distilled: id of the model that was distilled from the baseline's; None: none is known.
    """
    half, fifths = max(steps // 2, 1), max(steps * 2 // 5, 1)
    found = [
        Technique(f"DPM-Solver++, {fifths} steps", 1, _solver("dpmsolver++", fifths), True, True),
        Technique(f"DDIM, {half} steps", 1, _solver("ddim", half)),
        Technique("float16", 1, {"dtype": "float16"}, True, True),
        Technique("bfloat16", 1, {"dtype": "bfloat16"}),
        Technique("memory-efficient attention", 2, {"attention_backend": "efficient"}, True),
        Technique("flash attention", 2, {"attention_backend": "flash"}, True, True),
        Technique("unfused attention, for comparison", 2, {"attention_backend": "math"}),
        Technique("attention slicing", 2, {"attention_slicing": True}),
        Technique("torch.compile", 2, {"use_torch_compile": True}, True),
        Technique("offload of components", 2, {"enable_model_cpu_offload": True}, False, True),
        Technique("offload of layers, next one copied ahead", 2, {"enable_group_offload": True}),
        Technique("int8 weights", 3, {"quantization": "int8-weight-only"}, True, True),
        Technique("int8 weights and products", 3, {"quantization": "int8-dynamic"}),
        Technique(f"UniPC, {fifths} steps", 3, _solver("unipc", fifths)),
        Technique(f"Euler, {half} steps", 3, _solver("euler", half)),
    ]
    if distilled is not None:
        own = {"model_id": distilled, "inference_steps": None, "scheduler": None, "guidance_scale": None}
        found.append(Technique(f"distilled model {distilled}", 3, own, True, True))
    return found


@dataclass(frozen=True)
class Stack:
    """Techniques of several tiers together."""

    tiers: int  # of tiers 1 to this one
    parts: tuple[Technique, ...]

    @property
    def options(self) -> dict[str, Any]:
        """Options of all parts; a later part's replace an earlier one's."""
        return {name: value for part in self.parts for name, value in part.options.items()}


def stacks(every: Sequence[Technique], working: Iterable[str]) -> list[Stack]:
    """What is measured together: tier 1; tiers 1 and 2, by compilation or by offloading; tiers 1 to 3.

    Offloading and compilation hook the same layers, so that there is a stack of each. The distilled model
    comes on top of everything else, with its own scheduler and steps.

    Args:
        every: all techniques.
        working: names of those that had a result by themselves.
    """
    known = set(working)
    able = [one for one in every if one.name in known]
    chosen: list[Technique] = []
    for one in (one for one in able if one.is_stacked and "model_id" not in one.options):
        if not any(set(one.options) & set(other.options) for other in chosen):
            chosen.append(one)
    found = [Stack(tier, tuple(one for one in chosen if one.tier <= tier)) for tier in (1, 2, 3)]
    spared = [one for one in found[1].parts if "use_torch_compile" not in one.options]
    offload = next((one for one in able if "enable_model_cpu_offload" in one.options), None)
    if offload is not None:
        found.insert(2, Stack(2, (*spared, offload)))
    distilled = next((one for one in able if "model_id" in one.options), None)
    if distilled is not None:
        found.append(Stack(3, (*chosen, distilled)))
    return list({tuple(p.name for p in one.parts): one for one in found if len(one.parts) > 1}.values())


def _solver(name: str, steps: int) -> Options:
    return {"scheduler": name, "inference_steps": steps}
