"""One torchrun a world size, its results for every parity test."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import pytest
from parity_case import Case
from parity_run import WorkerFailed, build_tiny_models, run_worker


@pytest.fixture(scope="session")
def parity_results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], dict[str, Any]]:
    """World size -> case name -> what the worker found; each world size is started once."""
    params = (item.callspec.params for item in request.session.items if hasattr(item, "callspec"))
    cases = [one["case"] for one in params if isinstance(one.get("case"), Case)]
    pattern = "|".join(f"^{re.escape(case.name)}$" for case in cases)
    folder = tmp_path_factory.mktemp("parity")
    build_tiny_models()

    @functools.cache
    def of_world_size(world_size: int) -> dict[str, Any]:
        try:
            return run_worker(world_size, folder / f"{world_size}.json", pattern)
        except WorkerFailed as failure:
            return {"": str(failure)}

    def checked(world_size: int) -> dict[str, Any]:
        results = of_world_size(world_size)
        if "" in results:
            pytest.fail(results[""], pytrace=False)
        return results

    return checked
