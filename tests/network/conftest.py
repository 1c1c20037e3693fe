"""Two hosts on one machine, for tests of what goes between nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import namespace_lan
import pytest


@pytest.fixture
def two_hosts(tmp_path: Path) -> Iterator[namespace_lan.Lan]:
    """Hosts n0 and n1, which share this machine's files."""
    reason = namespace_lan.why_not()
    if reason:
        pytest.skip(reason)
    with namespace_lan.Lan(["n0", "n1"], tmp_path) as lan:
        yield lan
