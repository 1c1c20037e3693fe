"""The cost of a load on this rank: time, host memory, which commit of the weights it was, random weights."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.measure.window import synchronize
from mlenergy.diffusion.weights.random.pipeline import start_report
from mlenergy.diffusion.weights.reading import reading_of

if TYPE_CHECKING:
    import torch

    from mlenergy.diffusion.distributed.cluster import Cluster


class LoadWatch:
    """Starts when it is made; `facts` says what changed since.

    Host memory is given twice, since N ranks of a node map the same files: `pss` counts a page
    that N processes share as 1/N on each, so that ranks add up to what the node holds; `uss`
    counts only pages that no other process has. None where the system does not tell (not Linux).

    device: that is loaded to; its work is waited for before the clock is read.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._began_s = time.perf_counter()
        self._uss_bytes, self._pss_bytes = _own_memory()

    @property
    def load_s(self) -> float:
        """Seconds since the start."""
        synchronize(self._device)
        return time.perf_counter() - self._began_s

    def facts(self, pipeline: Any) -> dict[str, Any]:
        """For `LoadReport.facts`: memory in bytes, how files were read, the commit of weights of the hub."""
        return self.facts_of(pipeline, Path(str(pipeline.config.get("_name_or_path", ""))))

    def facts_of(self, model: object, folder: Path | None) -> dict[str, Any]:
        """As `facts`, of a model whose weights were read from a folder; None: from none."""
        read = reading_of(model)
        uss_bytes, pss_bytes = _own_memory()
        return {
            "host_rss_peak_bytes": _peak_rss_bytes(),
            "host_uss_growth_bytes": _difference(uss_bytes, self._uss_bytes),
            "host_pss_growth_bytes": _difference(pss_bytes, self._pss_bytes),
            "weights_commit": None if folder is None else _commit(folder),
            **({} if read is None else {"weights_read": read}),
        }


def random_facts(pipeline: object, cluster: Cluster) -> dict[str, Any]:
    """The cost of building random weights on this rank, for the results; empty for weights that were loaded.

    Every rank calls it: the ranks compare what they hold.

    Raises:
        UserError: on every rank, where two hold different weights.
    """
    report = start_report(pipeline)
    if report is None:
        return {}
    fingerprints = cluster.all_gather_object(report.fingerprint)
    for rank, fingerprint in enumerate(fingerprints):
        if fingerprint != fingerprints[0]:
            raise UserError(
                f"ranks 0 and {rank} made different random weights; give all nodes the same kind of device "
                "and the same version of torch"
            )
    return {"random_weights": report.as_dict()}


def _own_memory() -> tuple[int | None, int | None]:
    try:
        memory = psutil.Process().memory_full_info()
    except psutil.Error:
        return None, None
    return getattr(memory, "uss", None), getattr(memory, "pss", None)


def _difference(now: int | None, before: int | None) -> int | None:
    return None if now is None or before is None else now - before


def _peak_rss_bytes() -> int:
    """Since the process began; the kernel counts in KiB, but macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _commit(folder: Path) -> str | None:
    """The hub's cache keeps a commit's files in snapshots/<commit>."""
    return folder.name if folder.parent.name == "snapshots" else None
