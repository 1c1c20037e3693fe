"""Weight files brought into the page cache while the libraries are imported. No torch.

The loaders map files and touch one tensor after the other, in an order that no disk likes, and only once all
is imported. One process of each node reads the same files from begin to end before and beside them: what it
has read, every rank of the node finds in memory. No GPU takes part, and the host holds no second copy: pages
of files go as soon as memory is needed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from mlenergy.diffusion.distributed.cluster import Rank
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.hub import INDEX_FILE, ModelFolder, read_model
from mlenergy.diffusion.models.spec import is_tiny
from mlenergy.diffusion.weights.files import cached_share, component_files, total_bytes

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan

_THREADS = 4
_CHUNK_BYTES = 8 << 20
_MOST_OF_MEMORY = 0.8  # of what is available: more would push out what was read first


class ReadAhead:
    """Threads that read files from begin to end; they begin as it is made, and are over when `end` returns.

    Files of which all probed places are in the page cache are left out.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._cached = cached_share(files)
        self._bytes = total_bytes(files)
        self._files = len(files)
        self._todo = [path for path in reversed(files) if path not in self._cached.whole]
        self._left_bytes = int(psutil.virtual_memory().available * _MOST_OF_MEMORY)
        self._read_bytes = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._began_s = time.perf_counter()
        self._ended_s = self._began_s
        count = min(_THREADS, len(self._todo))
        # Daemons: a run that fails meanwhile does not wait for them.
        self._threads = [threading.Thread(target=self._run, name="read", daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until all is read."""
        for thread in self._threads:
            thread.join()

    def end(self) -> dict[str, Any]:
        """Stop reading, and say what was read: plain data for the results.

        Returns:
            files, bytes: all that the model is loaded from. in_page_cache: the share that was there before;
            in_page_cache_reason: why it is null. read_bytes, seconds: what was read, and for how long.
        """
        self._stopped.set()
        self.join()
        return {
            "files": self._files,
            "bytes": self._bytes,
            "in_page_cache": self._cached.share,
            "in_page_cache_reason": self._cached.reason,
            "read_bytes": self._read_bytes,
            "seconds": self._ended_s - self._began_s,
        }

    def _run(self) -> None:
        buffer = bytearray(_CHUNK_BYTES)
        while (path := self._next()) is not None:
            try:
                with path.open("rb", buffering=0) as file:
                    while not self._stopped.is_set() and (read := file.readinto(buffer)):
                        self._count(read)
            except OSError:  # the loader will say what is wrong with it
                continue

    def _next(self) -> Path | None:
        with self._lock:
            return self._todo.pop() if self._todo and not self._stopped.is_set() else None

    def _count(self, read: int) -> None:
        with self._lock:
            self._read_bytes += read
            self._ended_s = time.perf_counter()
            if self._read_bytes >= self._left_bytes:
                self._stopped.set()


def read_ahead(plan: Plan, rank: Rank) -> ReadAhead | None:
    """Begin to read the plan's weights ahead on the first rank of each node.

    None on the others, and where no file of them is on this machine yet.
    """
    files = _local_files(plan) if rank.local_rank == 0 else []
    return ReadAhead(files) if files else None


def _local_files(plan: Plan) -> list[Path]:
    if plan.weights == "random" or is_tiny(plan.weights_from) or plan.spec.next_scale is not None:
        return []
    try:
        folder = _local_folder(plan)
        if folder is None:
            return []
        parts = folder.loaded_components
        return [path for name in parts for path in component_files(folder.path / name, plan.variant)]
    except (UserError, OSError, ValueError, LookupError):  # locating the weights will say what is wrong
        return []


def _local_folder(plan: Plan) -> ModelFolder | None:
    """The folder that was given, or the hub's copy on this machine; asks no network."""
    if Path(plan.weights_from).expanduser().is_dir():
        return read_model(plan.weights_from)
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(plan.weights_from, INDEX_FILE, revision=plan.revision)
    return read_model(str(Path(index).parent)) if isinstance(index, str) else None
