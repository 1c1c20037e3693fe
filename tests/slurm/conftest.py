"""The Slurm that tests submit to, started once and ended with the session."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import local_slurm
import pytest


@pytest.fixture(scope="session")
def slurm() -> Iterator[local_slurm.LocalSlurm]:
    """A Slurm with two nodes of two (pretended) GPUs each."""
    reason = local_slurm.why_not()
    if reason:
        pytest.skip(reason)
    # Not pytest's own folder: munge's socket needs a short path that everyone may enter.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        with local_slurm.LocalSlurm(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder)
