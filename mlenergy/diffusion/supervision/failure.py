"""An exception as the record that status.json keeps, and out of memory as a line with a way out."""

from __future__ import annotations

import re
import sys
import traceback
from typing import TYPE_CHECKING, Any

from mlenergy.errors import UserError

if TYPE_CHECKING:
    from mlenergy.diffusion.plan import Plan


def describe(error: BaseException, rank: int) -> dict[str, Any]:
    """The failed rank, its message, traceback and memory figures (None where memory is not the matter)."""
    return {
        "rank": rank,
        "message": " ".join(str(error).split()) or type(error).__name__,
        "traceback": "".join(traceback.format_exception(error)),
        "memory": getattr(error, "memory_figures", None),
    }


def explain_memory(error: BaseException, plan: Plan, rank: int, stage: str) -> UserError | None:
    """The line for an allocation that failed, None for any other error."""
    text = " ".join(str(error).split())
    torch = sys.modules.get("torch")
    is_gpu = torch is not None and isinstance(error, torch.OutOfMemoryError)
    is_host = (
        isinstance(error, MemoryError) or re.search(r"DefaultCPUAllocator: .*allocate", text) is not None
    )
    if not (is_gpu or is_host):
        return None
    where = f"{plan.device_name} of rank {rank}" if is_gpu else f"the host's memory (rank {rank})"
    line = UserError(f"out of memory on {where} while {stage}: {text}; {_ways_out(plan)}")
    line.memory_figures = _figures(text, is_gpu)  # type: ignore[attr-defined]
    return line


def _figures(text: str, is_gpu: bool) -> dict[str, Any]:
    tried = re.search(r"[Tt]ried to allocate ([\d.]+ ?\w+)", text)
    figures: dict[str, Any] = {"tried": tried[1] if tried else None, "kind": "gpu" if is_gpu else "host"}
    if is_gpu:
        import torch

        free_bytes, total_bytes = torch.cuda.mem_get_info()
        figures |= {
            "free_bytes": free_bytes,
            "total_bytes": total_bytes,
            "allocated_bytes": torch.cuda.memory_allocated(),
            "reserved_bytes": torch.cuda.memory_reserved(),
        }
    return figures


def _ways_out(plan: Plan) -> str:
    ways = []
    if plan.batch_size > 1:
        ways.append(f"a --workload.batch_size below {plan.batch_size}")
    if "pipefusion" in plan.spec.family.modes[plan.engine]:
        ways.append("--pipefusion_parallel_degree, which splits the weights")
    if plan.parallel.sequence == 1 and "ulysses" in plan.spec.family.modes[plan.engine]:
        ways.append("more processes with --ulysses_degree, which split the activations")
    if plan.dtype == "float32":
        ways.append("--workload.dtype bfloat16")
    ways.append("a smaller --workload.height and .width")
    return f"what helps: {', '.join(ways)}"
