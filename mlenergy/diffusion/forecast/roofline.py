"""A measured run's time by kind of work: each stage's measured seconds, split by the terms of the formula."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.cost.costs import costs_of
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.cards import card_named
from mlenergy.diffusion.forecast.formula import Terms, terms_of
from mlenergy.diffusion.forecast.levers import Lever, levers_of
from mlenergy.diffusion.forecast.own_runs import plan_of_result
from mlenergy.diffusion.forecast.predict import Fitted, constants_of, read_fitted, refuse_guesses
from mlenergy.diffusion.forecast.work import work_of
from mlenergy.diffusion.models.architectures.reader import find_architecture

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan

# In the order in which they fill a stage: first what no other kernel can take away.
KINDS = ("matmul", "attention", "communication", "memory", "launches")
WAITING = "waiting"
_STAGES = ("text_encode", "denoise", "vae_decode", "other")
# With these the same products are computed in the same type, so that the terms hold, or are upper bounds.
_COMPILED = ("compile_mode", "compile_vae", "compile_text_encoders")
_SAME_WORK = {
    *_COMPILED,
    *("inductor_mode", "inductor_coordinate_descent", "inductor_conv_1x1_as_mm", "inductor_epilogue_fusion"),
    *("compile_fullgraph", "compile_static_shapes", "compile_cache", "attention", "fuse_qkv"),
    *("vae_channels_last", "unet_channels_last", "cudnn_benchmark", "vae_slicing", "scheduler"),
}
_HIGH = 1.05  # terms this much longer than their stage are told


@dataclass(frozen=True)
class StageShares:
    """Measured seconds of a stage in a mean window, by kind.

    Attributes:
        seconds: measured.
        kinds_s: seconds by kind of work and `waiting`; they sum to `seconds`.
        terms_s: seconds of the formula by kind, before they were fitted into the stage; without `waiting`.
    """

    seconds: float
    kinds_s: Mapping[str, float]
    terms_s: Mapping[str, float]

    @property
    def shares(self) -> dict[str, float] | None:
        """Share of each kind; None where the stage took no time."""
        return {k: s / self.seconds for k, s in self.kinds_s.items()} if self.seconds > 0 else None


@dataclass(frozen=True)
class Roofline:
    """A run's time by stage and kind.

    Attributes:
        matmul_tflops: rate of large matrix products that published runs reach on this GPU, in TFLOP/s.
        notes: reasons for which a share is less sure.
        levers: in the order of the shares that they act on, largest first.
    """

    model_id: str
    gpu: str
    gpus: int
    matmul_tflops: float
    stages: Mapping[str, StageShares]
    notes: tuple[str, ...]
    levers: tuple[Lever, ...]
    source: str

    @property
    def whole(self) -> StageShares:
        """All stages together."""
        return _sum(self.stages)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        every = {**self.stages, "whole": self.whole}
        return {
            **asdict(self),
            "stages": {name: asdict(part) | {"shares": part.shares} for name, part in every.items()},
        }


def roofline_of(content: Mapping[str, Any], fitted: Fitted | None = None) -> Roofline:
    """Split the stages of a result, each at its mean over the measured windows.

    Args:
        content: of results.json.
        fitted: constants; the package's own where it is None.

    Raises:
        UserError: it ran on no GPU that is known, by a setting that changes the work the terms count, or
            its stages were not measured.
    """
    plan, known = plan_of_result(content), read_fitted() if fitted is None else fitted
    if plan.device != "cuda":
        raise UserError(f"it ran on {plan.device}, and the terms are those of NVIDIA GPUs; name such a run")
    card = card_named(plan.device_name, plan.dtype)
    _refuse_other_work(plan)
    refuse_guesses(replace(plan, optimizations=Optimizations()), card)
    measured = _stage_seconds(content)
    model = find_architecture(plan.weights_from, plan.revision)
    work = work_of(plan, model, costs_of(model))
    constants, _ = constants_of(known, card)
    text, step, decode = terms_of(work, card, constants, known.models.get(plan.spec.model_id, 1.0))
    stages = {
        "text_encode": split(measured["text_encode"], text),
        "denoise": split(measured["denoise"], step, work.steps),
        "vae_decode": split(measured["vae_decode"], decode),
        # Between the stages the GPU waits for the host: tokens, images, the call itself.
        "other": split(max(0.0, measured["other"]), Terms(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
    }
    return Roofline(
        model_id=plan.spec.model_id,
        gpu=card.name,
        gpus=work.gpus,
        matmul_tflops=constants["matmul_share"] * card.flops_per_s / 1e12,
        stages=stages,
        notes=tuple(_notes(plan, card.name, known, stages)),
        levers=levers_of(
            {name: part.kinds_s for name, part in stages.items()}, plan.optimizations, work.gpus
        ),
        source=known.source,
    )


def split(seconds: float, terms: Terms, calls: float = 1) -> StageShares:
    """Measured seconds of a stage by kind of work.

    Terms fill the stage in the order of `KINDS`, each at most what is left; the rest is waiting.

    Args:
        seconds: of the stage.
        terms: of one call.
        calls: in the stage.
    """
    wanted = {
        "matmul": calls * terms.matmul_s,
        "attention": calls * terms.attention_s,
        "communication": calls * terms.link_s,
        "memory": calls * (terms.elementwise_s + terms.copied_s),
        "launches": calls * max(0.0, terms.duration_s - terms.gpu_s),  # rounding may go below
    }
    left, found = seconds, {}
    for kind in KINDS:
        found[kind] = min(wanted[kind], left)
        left -= found[kind]
    return StageShares(seconds, {**found, WAITING: left}, wanted)


def _sum(stages: Mapping[str, StageShares]) -> StageShares:
    parts = list(stages.values())
    return StageShares(
        seconds=sum(part.seconds for part in parts),
        kinds_s={kind: sum(part.kinds_s[kind] for part in parts) for kind in (*KINDS, WAITING)},
        terms_s={kind: sum(part.terms_s[kind] for part in parts) for kind in KINDS},
    )


def _stage_seconds(content: Mapping[str, Any]) -> dict[str, float]:
    stages = content["stages"]
    means = {name: stages[f"{name}_s"] for name in _STAGES}
    if any(summary is None for summary in means.values()):
        raise UserError(
            f"its stages are not known: {stages['reason'] or 'no reason is given'}; measure it again"
        )
    return {name: float(summary["mean"]) for name, summary in means.items()}


def _refuse_other_work(plan: Plan) -> None:
    for name, record in plan.optimizations.in_use.items():
        if name not in _SAME_WORK:
            option = record.option_for(getattr(plan.optimizations, name))
            raise UserError(
                f"it ran with --{option}, whose work the terms do not count; name a run without it"
            )


def _notes(plan: Plan, gpu: str, known: Fitted, stages: Mapping[str, StageShares]) -> list[str]:
    notes = []
    if gpu not in known.time:
        notes.append(f"no runs on {gpu} are behind the constants: they are scaled to it by its data sheet")
    if plan.spec.model_id not in known.models:
        notes.append(f"no run of {plan.spec.model_id} is behind the constants")
    if any(name in plan.optimizations.in_use for name in _COMPILED):
        notes.append("memory and launches are those of eager kernels, upper bounds of what is compiled")
    for name, part in stages.items():
        terms_s = sum(part.terms_s.values())
        if 0 < part.seconds * _HIGH < terms_s:
            notes.append(
                f"the terms of {name} are {terms_s / part.seconds:.2f} x its measured time; what did not fit "
                "is left out of the last kinds"
            )
    return notes
