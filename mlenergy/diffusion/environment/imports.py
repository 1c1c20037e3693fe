"""Imports of large libraries, without what Python's garbage collector would take for them."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def large_imports() -> Iterator[None]:
    """Keep the collector off while modules are imported, and away from them as the process ends.

    What an import makes stays. With the collector, which looks through all of it again and again,
    `from diffusers import FluxPipeline` takes 6.8 s of processor time, without it 5.9 s; and 2 s more go into
    its last pass, over everything, before the process ends (CPython 3.11).
    """
    was_on = gc.isenabled()
    gc.disable()
    atexit.unregister(gc.freeze)  # once, however many imports there are
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        if was_on:
            gc.enable()
