"""Forecast of a plan: seconds and joules with the interval that nine of ten measured runs would lie in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.cost.costs import costs_of
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.cards import card_named, has_nvlink
from mlenergy.diffusion.forecast.formula import OF_VIDEOS, POWER, TIME, Card, Kind, power_of, times_of
from mlenergy.diffusion.forecast.transfer import scaled
from mlenergy.diffusion.forecast.work import work_of
from mlenergy.diffusion.models.architectures.reader import find_architecture

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan

_DTYPES = ("bfloat16", "float16")  # of the same peak; the fit has bfloat16
_ENGINE = "xdit"  # of the published runs
_TRANSFER_FROM = "H100"  # source of the constants of a GPU without measured runs


@dataclass(frozen=True)
class Interval:
    """A value, and the bounds that hold nine of ten measured runs."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Forecast:
    """Seconds and joules of a plan on a GPU.

    Attributes:
        gpu: short name.
        duration_s: of one iteration.
        energy_per_output_j: all GPUs; None with `energy_reason` where no joules were in the fit.
        power_w: mean of one GPU.
        basis: the errors that made the interval: runs (model and GPU are in the fit), models (the model
            or a setting is not), gpus (the GPU is not); the same of videos: videos, video_models, video_gpus.
        extrapolated: reasons why the interval is not that of `runs`, in words.
        parts_s: seconds of an iteration by stage: text_encode, denoise, vae_decode.
        source: the runs that the constants were fitted to.
    """

    gpu: str
    duration_s: Interval
    energy_per_output_j: Interval | None
    power_w: float | None
    basis: Kind
    extrapolated: tuple[str, ...]
    parts_s: Mapping[str, float]
    source: str
    energy_reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Fitted:
    """Constants with their provenance and errors, as a file keeps them."""

    source: str
    time: Mapping[str, Mapping[str, float]]
    power: Mapping[str, Mapping[str, float]]
    models: Mapping[str, float]
    errors: Mapping[Kind, Mapping[str, Mapping[str, float]]]


def read_fitted(path: Path | None = None) -> Fitted:
    """The constants of the package, or of a file that `mlenergy calibrate` wrote.

    Raises:
        UserError: the file is not there, or is none of that kind.
    """
    if path is None:
        return _own()
    try:
        return _fitted(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} holds no constants of a forecast ({error}); write them: mlenergy calibrate RESULTS"
        ) from error


@cache
def _own() -> Fitted:
    file = resources.files("mlenergy.diffusion") / "data" / "forecast.json"
    return _fitted(json.loads(file.read_text("utf-8")))


def _fitted(content: Mapping[str, Any]) -> Fitted:
    return Fitted(
        source=content["source"],
        time={gpu: {name: values[name] for name in TIME} for gpu, values in content["time"].items()},
        power={gpu: {name: values[name] for name in POWER} for gpu, values in content["power"].items()},
        models=content["models"],
        errors=content["errors"],
    )


def forecast_of(plan: Plan, gpu: str, fitted: Fitted | None = None, may_count: bool = True) -> Forecast:
    """Seconds and joules of one iteration of a plan on a GPU.

    Args:
        plan: a checked plan.
        gpu: short name (H100) or the driver's.
        fitted: constants; the package's own where it is None.
        may_count: allows a child process that counts a model which nobody has counted yet.

    Raises:
        UserError: a forecast of this plan would be a guess; with the setting that makes it one.
    """
    known = read_fitted() if fitted is None else fitted
    card = card_named(gpu, plan.dtype)
    refuse_guesses(plan, card)
    model = find_architecture(plan.weights_from, plan.revision)
    work = work_of(plan, model, costs_of(model, may_count))
    basis, extrapolated = _basis(plan, card, known)
    errors = _errors(plan, card, known, basis)
    constants, watts = constants_of(known, card)
    times = times_of(work, card, constants, known.models.get(plan.spec.model_id, 1.0))
    seconds = _interval(times.duration_s, errors["seconds"])
    parts = {
        "text_encode": times.text_s,
        "denoise": work.steps * times.step_s,
        "vae_decode": times.decode_s,
    }
    if watts is None or "joules" not in errors:
        reason = f"no joules of {card.name} were in the runs that the constants were fitted to"
        return Forecast(card.name, seconds, None, None, basis, extrapolated, parts, known.source, reason)
    power = power_of(times, card, watts)
    joules = work.gpus * power * times.duration_s / plan.batch_size
    energy = _interval(joules, errors["joules"])
    return Forecast(card.name, seconds, energy, power, basis, extrapolated, parts, known.source)


def refuse_guesses(plan: Plan, card: Card) -> None:
    """Refuse a plan with a setting that no run behind the constants has.

    Raises:
        UserError: with that setting.
    """
    if plan.engine == "autoregressive":
        raise UserError("no time can be forecast of next-scale prediction: no run behind it is of that kind")
    if plan.dtype not in _DTYPES:
        raise UserError(f"no time can be forecast in {plan.dtype}: the runs behind it are in bfloat16")
    in_use = [
        record.option_for(getattr(plan.optimizations, name))
        for name, record in plan.optimizations.in_use.items()
        if name != "scheduler"
    ]
    if in_use:
        raise UserError(
            f"no time can be forecast with --{in_use[0]}: the runs behind it are eager, without it"
        )
    for mode, degree in (("PipeFusion", plan.parallel.pipefusion), ("tensor", plan.parallel.tensor)):
        if degree > 1:
            raise UserError(f"no time can be forecast with {mode} parallelism: no run behind it uses it")
    if plan.parallel.world_size > 1 and not has_nvlink(card.name):
        raise UserError(f"no time can be forecast for several {card.name}: it has no NVLink")


def _basis(plan: Plan, card: Card, known: Fitted) -> tuple[Kind, tuple[str, ...]]:
    """The kind of error that holds for a plan, and the reasons for a wide one."""
    reasons = []
    if plan.spec.model_id not in known.models:
        reasons.append(f"no run of {plan.spec.model_id} is behind it")
    if plan.engine != _ENGINE:
        reasons.append(f"the runs behind it are of the {_ENGINE} engine")
    for mode, degree in (("CFG", plan.parallel.cfg), ("data", plan.parallel.data)):
        if degree > 1:
            reasons.append(f"no run behind it uses {mode} parallelism")
    if plan.parallel.parallel_vae:
        reasons.append("no run behind it uses the parallel VAE")
    kind: Kind = "models" if reasons else "runs"
    if card.name not in known.time:
        kind, reasons = "gpus", [f"extrapolated to {card.name} by its data sheet", *reasons]
    return (OF_VIDEOS[kind] if plan.makes_video else kind), tuple(reasons)


def _errors(plan: Plan, card: Card, known: Fitted, basis: Kind) -> Mapping[str, Mapping[str, float]]:
    """Errors that hold for a plan.

    Raises:
        UserError: the constants come without errors of this kind.
    """
    found = known.errors.get(basis)
    if found:
        return found
    if plan.makes_video and not any(known.errors.get(kind) for kind in OF_VIDEOS.values()):
        what = "videos"
    else:
        what = {"gpus": card.name, "video_gpus": card.name}.get(basis, plan.spec.model_id)
    raise UserError(f"no time can be forecast of {what}: no error of these constants is known for it")


def constants_of(known: Fitted, card: Card) -> tuple[Mapping[str, float], Mapping[str, float] | None]:
    """Constants of time, and of power where they are known; a GPU without runs has another's, scaled."""
    if card.name in known.time:
        return known.time[card.name], known.power.get(card.name)
    name = _TRANSFER_FROM if _TRANSFER_FROM in known.time else next(iter(known.time))
    source = card_named(name)
    power = known.power.get(name)
    return scaled(known.time[name], source, card), None if power is None else scaled(power, source, card)


def _interval(value: float, errors: Mapping[str, float]) -> Interval:
    return Interval(value, value * errors["low"], value * errors["high"])
