"""Out of memory as one line: where, what the plan had estimated, and what would help."""

from __future__ import annotations

import os
import re
import resource
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from mlenergy.diffusion.config.checks import reasons
from mlenergy.diffusion.config.optimizations import OPTIMIZATIONS
from mlenergy.diffusion.environment.gpus import GIB
from mlenergy.diffusion.errors import CheckError, Interrupted, UserError
from mlenergy.diffusion.supervision.allocation import failed_allocation
from mlenergy.diffusion.supervision.estimate import Estimate, estimate_of

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan


class OutOfMemory(UserError):
    """An allocation that failed. Its line gives the plan's estimate once that has been made.

    Args:
        what: place, stage, and the allocator's own message.
        figures: `kind` (gpu or host), `tried`, and the memory of the device.
        plan: what was run.
    """

    def __init__(self, what: str, figures: dict[str, Any], plan: Plan) -> None:
        super().__init__(what)
        self._what = what
        self._figures = figures
        self._plan = plan
        self.estimate: Estimate | None = None  # None: not asked for yet

    def __str__(self) -> str:
        estimate = [] if self.estimate is None else [self._estimate_text(self.estimate)]
        ways = ", ".join(_ways_out(self._plan, self.estimate or Estimate()))
        return "; ".join([self._what, *estimate, f"what helps: {ways}"])

    def add_estimate(self, limit_s: float) -> Estimate:
        """Ask for the plan's estimate; the line and the record have it from then on."""
        if self._figures["kind"] == "host" and self._plan.device != "cpu":
            reason = "estimates are of a GPU's memory, and it was the host's that ran out"
            self.estimate = Estimate(estimate_reason=reason)
        else:
            self.estimate = estimate_of(self._plan, limit_s)
        return self.estimate

    def record(self) -> dict[str, Any]:
        """The figures for status.json, the estimate among them where it has been asked for."""
        return self._figures | (self.estimate.as_dict() if self.estimate is not None else {})

    def _estimate_text(self, estimate: Estimate) -> str:
        if estimate.estimated_bytes is None or estimate.estimated_parameter_bytes is None:
            return f"what the plan needs could not be estimated ({estimate.estimate_reason})"
        without = ", ".join(estimate.estimate_leaves_out)
        return (
            f"the plan estimated about {_gib(estimate.estimated_bytes)} a rank, "
            f"{_gib(estimate.estimated_parameter_bytes)} of it weights, most of the rest in "
            f"{estimate.estimated_stage}{f' (without what {without} changes)' if without else ''}, "
            f"and {self._room_text()}"
        )

    def _room_text(self) -> str:
        if self._figures["total_bytes"] is None:
            return "what this GPU has cannot be asked any more"
        total = f"has {_gib(self._figures['total_bytes'])}"
        if self._figures["kind"] == "gpu":
            return f"this GPU {total}"
        limit = self._figures["limit_bytes"]
        return f"this host {total}" + (f", of which a process may take {_gib(limit)}" if limit else "")


def explain_memory(error: BaseException, plan: Plan, rank: int, stage: str) -> OutOfMemory | None:
    """The line for an allocation that failed, None for any other error and for lines of this program."""
    kind = None if isinstance(error, (UserError, CheckError, Interrupted)) else failed_allocation(error)
    if kind is None:
        return None
    text = " ".join(str(error).split()) or type(error).__name__
    where = f"{plan.device_name} of rank {rank}" if kind == "gpu" else f"the host's memory (rank {rank})"
    tried = re.search(r"[Tt]ried to allocate ([\d.]+ ?\w+)", text)
    figures = {"kind": kind, "tried": tried[1] if tried else None}
    what = f"out of memory on {where} while {stage}: {text}"
    return OutOfMemory(what, figures | (_gpu_figures() if kind == "gpu" else _host_figures()), plan)


def _gpu_figures() -> dict[str, Any]:
    names = ("free_bytes", "total_bytes", "allocated_bytes", "reserved_bytes")
    try:
        import torch

        memory = torch.cuda.mem_get_info()
        figures = (*memory, torch.cuda.memory_allocated(), torch.cuda.memory_reserved())
    except Exception as error:  # some failures leave a CUDA context in which every further call fails
        return dict.fromkeys(names) | {
            "figures_reason": str(error.args[0] if error.args else error).split("\n")[0]
        }
    return dict(zip(names, figures, strict=True)) | {"figures_reason": None}


def _host_figures() -> dict[str, Any]:
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS)]
    return {
        "total_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "limit_bytes": min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=None),
    }


def _ways_out(plan: Plan, estimate: Estimate) -> list[str]:
    """Options that need less memory and that this plan allows, by the estimated use of the memory."""
    modes = plan.spec.family.modes[plan.engine]
    total, weights = estimate.estimated_bytes, estimate.estimated_parameter_bytes
    weights_matter = total is None or weights is None or weights > total / 3
    ways = []
    if plan.batch_size > 1:
        ways.append(f"a --workload.batch_size below {plan.batch_size}")
    if "pipefusion" in modes and weights_matter:
        ways.append("--pipefusion_parallel_degree, which splits the weights")
    if plan.parallel.sequence == 1 and "ulysses" in modes:
        ways.append("more processes with --ulysses_degree, which split the activations")
    if weights_matter:
        ways += _offered(plan, "weights")
    if estimate.estimated_stage in (None, "vae_decode"):
        ways += _offered(plan, "vae_decode")
    if plan.dtype == "float32":
        ways.append("--workload.dtype bfloat16")
    model = plan.spec.next_scale
    if model is None or len(model.schedules) > 1:  # else there is no other size
        ways.append("a smaller --workload.height and .width")
    return ways or ["a smaller model"]


def _offered(plan: Plan, saves: Literal["weights", "vae_decode"]) -> list[str]:
    """Optimizations that save there, are not in use yet and pass the plan's checks; exact ones first."""
    found = []
    for name, record in OPTIMIZATIONS.items():
        remedy = record.remedy
        if remedy is None or remedy.saves != saves or name in plan.optimizations.in_use:
            continue
        changed = replace(plan.optimizations, **{name: remedy.value})
        if reasons(replace(plan, optimizations=changed)):
            continue
        takes_value = not record.flags and remedy.value is not True
        value = f" {remedy.value}" if takes_value else ""
        is_lossy = record.lossy is not None
        words = f"--{record.option_for(remedy.value)}{value}{' (lossy)' if is_lossy else ''}"
        found.append((is_lossy, words))
    return [words for _, words in sorted(found, key=lambda offer: offer[0])]


def _gib(size: int) -> str:
    return f"{size / GIB:.3g} GiB"
