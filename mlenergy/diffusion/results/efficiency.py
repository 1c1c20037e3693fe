"""FLOPs against what was measured: rates, share of the GPU's peak, joules. No torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.cost.efficiency import Efficiency, efficiency
from mlenergy.diffusion.cost.flops import StageFlops
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.executed import PlannedWork, calls_that_ran, text_that_ran, work_that_differs
from mlenergy.diffusion.results.units import unit_made

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.measure.samples import Iteration

_TERA = 1e12
_COUNTED_NOWHERE = "FLOPs are counted as they run, which takes ranks with images of their own"
_NOT_YET = "no file says what this pipeline reads: its FLOPs are counted as it runs, after the windows"


def count_ahead(plan: Plan, say: Callable[[str], None]) -> str | None:
    """Count the plan's FLOPs where nobody has counted this architecture yet; done before measuring.

    A child process takes some seconds, once for an architecture, and what it finds is cached. It ends before
    any window opens; `CountAhead` runs it beside the loading.

    Args:
        plan: what will be run.
        say: told before counting starts.

    Returns:
        Why they are not known, or None.
    """
    from mlenergy.diffusion.cost.costs import costs_of, needs_count
    from mlenergy.diffusion.models.architectures.reader import find_architecture

    if _other_work(plan) is not None:
        return None  # they would not be used
    if plan.spec.family.counts_as_run:
        return _NOT_YET
    if plan.spec.next_scale is not None:
        return None  # by formula
    try:
        model = find_architecture(plan.weights_from, plan.revision)
        if needs_count(model):
            say(f"counting the FLOPs of {plan.spec.model_id}, once")
            costs_of(model)
    except UserError as error:
        return str(error)
    except Exception as error:  # a figure beside the measurement is not worth losing it
        return f"counting failed ({type(error).__name__}: {' '.join(str(error).split())})"
    return None


class CountAhead:
    """`count_ahead` beside other work: begins as it is made, is over when `join` returns."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._reason: str | None = None
        # A daemon: a run that fails meanwhile does not wait for it.
        self._thread = threading.Thread(target=self._count, args=(plan, say), name="count", daemon=True)
        self._thread.start()

    def join(self) -> str | None:
        """Wait for the count; returns why the FLOPs are not known, or None."""
        self._thread.join()
        return self._reason

    def _count(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._reason = count_ahead(plan, say)


def efficiency_section(
    plan: Plan,
    iterations: Sequence[Iteration],
    tf32: bool = False,
    planned: PlannedWork | None = None,
    not_counted: str | None = None,
    names: Sequence[str] = (),
    as_run: StageFlops | None = None,
) -> dict[str, Any]:
    """Arithmetic of the exact computation, and what the mean iteration made of it. Counts nothing itself.

    Args:
        plan: what was run.
        iterations: what was measured.
        tf32: whether float32 products ran on tensor cores.
        planned: the denoiser's work; where its calls are known, those that ran are counted, not the steps.
        not_counted: why the FLOPs are not known, of `count_ahead`.
        names: products that the ranks computed on; of different ones there is no one peak.
        as_run: FLOPs that were counted as they ran, in the place of those of the architecture.
    """
    energies = [iteration.energy.gpu_energy_j for iteration in iterations]
    known = [energy_j for energy_j in energies if energy_j is not None]
    energy_j = sum(known) / len(known) if len(known) == len(energies) else None
    planned = planned or PlannedWork()
    calls = calls_that_ran(planned, iterations) if plan.parallel.pipefusion == 1 else None
    reason = _no_count(plan, iterations, planned, calls)
    if reason is None:
        try:
            text = text_that_ran(plan, iterations)
            flops = _count(plan, not_counted, text) if as_run is None else as_run
            flops = flops if calls is None else replace(flops, steps=calls / plan.denoiser_calls_each_step)
        except UserError as error:
            reason = not_counted or str(error)
        except Exception as error:  # a figure beside the measurement is not worth losing it
            reason = f"counting failed ({type(error).__name__}: {' '.join(str(error).split())})"
    if reason is not None:
        keys = (*_KEYS, unit_made(plan.spec.family.output).tflops)
        return dict.fromkeys(keys) | dict.fromkeys(_REASONS, reason)
    seconds = sum(iteration.duration_s for iteration in iterations) / len(iterations)
    plain = "tfloat32" if tf32 and plan.dtype == "float32" else plan.dtype
    dtype = plan.optimizations.computes_in or plain  # products in fewer bits have a peak of their own
    devices = plan.parallel.world_size
    rates = efficiency(flops, seconds, energy_j, devices, plan.device_name, dtype)
    if len(names) > 1:
        mixed = f"the ranks compute on different GPUs: {', '.join(names)}"
        rates = replace(rates, mfu=None, peak_tflops=None, peak_source=None, mfu_reason=mixed)
    return _of_flops(plan, flops, seconds) | _of_rates(plan, rates, dtype)


_REASONS = ("reason", "mfu_reason", "j_per_tflop_reason")
_KEYS = (
    *("tflops_per_iteration", "stage_tflops", "tflop_per_s", "tflops_per_gpu"),
    *("mfu", "peak_tflops", "peak_dtype", "peak_source", "j_per_tflop"),
)


def _no_count(
    plan: Plan, iterations: Sequence[Iteration], planned: PlannedWork, calls: float | None
) -> str | None:
    """The reason why the exact computation's FLOPs are not what ran, None where they are."""
    if (other := _other_work(plan)) is not None:
        return other
    if calls is not None:  # how often it ran is known, whatever the plan says
        lines = work_that_differs(replace(planned, calls=round(calls)), iterations)
        return lines[0] if lines else None
    odd = [i.stages.step_reason for i in iterations if i.stages is not None and i.stages.step_reason]
    return odd[0] if odd else None


def _other_work(plan: Plan) -> str | None:
    """The reason why a plan asks for other work than the exact computation, None where it does not."""
    if plan.optimizations.cache is not None:
        return f"the cache {plan.optimizations.cache} left out a part of the work"
    if plan.use_resolution_binning:
        return "resolution binning generates at another size than the one asked for"
    return None


def flops_of_ranks(plan: Plan, ranks: Sequence[Mapping[str, Any]]) -> StageFlops:
    """The FLOPs that every rank has counted as it ran, added up: each has made images of its own.

    Args:
        plan: what was run.
        ranks: effects of each rank, with `flops` as `engines.counted.flops_as_run` gives them.

    Raises:
        UserError: they are not known, with the reason.
    """
    counted = [rank.get("flops") or {"reason": _COUNTED_NOWHERE} for rank in ranks]
    reason = next((each["reason"] for each in counted if each["reason"] is not None), _changed_work(plan))
    if reason is not None:
        raise UserError(reason)
    text, denoise, decode = (
        sum(each[stage] for each in counted) for stage in ("text_encode", "denoise", "vae_decode")
    )
    return StageFlops(text, round(denoise / plan.steps), decode, plan.steps)


def _changed_work(plan: Plan) -> str | None:
    """The reason why what torch's counter sees is not the exact computation, None where it is."""
    optimizations = plan.optimizations
    if optimizations.compiled_parts:
        return "the operators of compiled code cannot be counted as they run"
    if optimizations.quantization is not None:
        return "the operators of quantized weights cannot be counted as they run"
    return None


def _count(plan: Plan, not_counted: str | None, text_tokens: float | None) -> StageFlops:
    if plan.spec.family.counts_as_run:
        raise UserError(not_counted or _NOT_YET)
    from mlenergy.diffusion.cost.flops import flops_of

    return flops_of(plan, may_count=False, text_tokens=text_tokens)


def _of_flops(plan: Plan, flops: StageFlops, seconds: float) -> dict[str, Any]:
    stages = {
        "text_encode": flops.text_encode,
        "denoise_step": flops.denoise_step,
        "vae_decode": flops.vae_decode,
    }
    total = flops.total / _TERA
    return {
        "reason": None,
        "tflops_per_iteration": total,
        unit_made(plan.spec.family.output).tflops: total / plan.batch_size,
        "stage_tflops": {name: count / _TERA for name, count in stages.items()},
        "tflop_per_s": total / seconds,
    }


def _of_rates(plan: Plan, rates: Efficiency, dtype: str) -> dict[str, Any]:
    on_gpu = plan.device == "cuda"
    return {
        "tflops_per_gpu": rates.tflops_per_gpu if on_gpu else None,
        "mfu": rates.mfu if on_gpu else None,
        "mfu_reason": rates.mfu_reason if on_gpu else "no GPU takes part in this run",
        "peak_tflops": rates.peak_tflops if on_gpu else None,
        "peak_dtype": dtype if on_gpu else None,
        "peak_source": rates.peak_source if on_gpu else None,
        "j_per_tflop": rates.j_per_tflop,
        "j_per_tflop_reason": rates.j_per_tflop_reason,
    }
