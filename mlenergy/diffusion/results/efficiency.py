"""FLOPs against what was measured: rates, share of the GPU's peak, joules. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.cost.efficiency import Efficiency, efficiency
from mlenergy.diffusion.cost.flops import StageFlops
from mlenergy.diffusion.errors import UserError

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.measure.samples import Iteration

_TERA = 1e12


def efficiency_section(plan: Plan, iterations: Sequence[Iteration], tf32: bool = False) -> dict[str, Any]:
    """Arithmetic of the exact computation, and what the mean iteration made of it.

    An architecture that was not counted before is counted now where GPUs or joules are there to be
    compared with it; a child process takes some seconds for that, once.

    Args:
        plan: what was run.
        iterations: what was measured.
        tf32: whether float32 products ran on tensor cores.
    """
    energies = [iteration.energy.gpu_energy_j for iteration in iterations]
    known = [energy_j for energy_j in energies if energy_j is not None]
    energy_j = sum(known) / len(known) if len(known) == len(energies) else None
    reason = _no_count(plan, iterations)
    if reason is None:
        try:
            flops = _count(plan, has_use=plan.device == "cuda" or energy_j is not None)
        except UserError as error:
            reason = str(error)
        except Exception as error:  # a figure beside the measurement is not worth losing it
            reason = f"counting failed ({type(error).__name__}: {' '.join(str(error).split())})"
    if reason is not None:
        return dict.fromkeys(_KEYS) | dict.fromkeys(_REASONS, reason)
    seconds = sum(iteration.duration_s for iteration in iterations) / len(iterations)
    plain = "tfloat32" if tf32 and plan.dtype == "float32" else plan.dtype
    dtype = plan.optimizations.computes_in or plain  # products in fewer bits have a peak of their own
    devices = plan.parallel.world_size
    rates = efficiency(flops, seconds, energy_j, devices, plan.device_name, dtype)
    return _of_flops(plan, flops, seconds) | _of_rates(plan, rates, dtype)


_REASONS = ("reason", "mfu_reason", "j_per_tflop_reason")
_KEYS = (
    *("tflops_per_iteration", "tflops_per_image", "stage_tflops", "tflop_per_s", "tflops_per_gpu"),
    *("mfu", "peak_tflops", "peak_dtype", "peak_source", "j_per_tflop"),
)


def _no_count(plan: Plan, iterations: Sequence[Iteration]) -> str | None:
    """The reason why the exact computation's FLOPs are not what ran, None where they are."""
    if plan.optimizations.cache is not None:
        return f"the cache {plan.optimizations.cache} left out a part of the work"
    if plan.use_resolution_binning:
        return "resolution binning generates at another size than the one asked for"
    odd = [i.stages.step_reason for i in iterations if i.stages is not None and i.stages.step_reason]
    return odd[0] if odd else None


def _count(plan: Plan, has_use: bool) -> StageFlops:
    from mlenergy.diffusion.cost.flops import flops_of

    return flops_of(plan, may_count=has_use)


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
        "tflops_per_image": total / plan.batch_size,
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
