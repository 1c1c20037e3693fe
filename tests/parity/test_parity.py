"""Every parallel mode gives the image that one rank gives; what is known to be wrong is still wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from parity_case import Case
from parity_cases import APPROXIMATE, BROKEN, CASES, FAULTS, QUICK, REFUSED
from parity_run import RESULTS

Results = Callable[[int], dict[str, Any]]


def each(cases: Iterable[Case]) -> pytest.MarkDecorator:
    """A test for every case; `make test` runs those in which every two factors meet."""
    params = (pytest.param(case, marks=() if case.name in QUICK else pytest.mark.full) for case in cases)
    return pytest.mark.parametrize("case", list(params), ids=lambda case: case.name)


def differences(case: Case, results: Results) -> list[float]:
    found = results(case.world_size)[case.name]
    assert "error" not in found, found["error"] + "\n" + "\n".join(found.get("traces", ()))
    assert len(found["differences"]) == len(case.calls)
    return list(found["differences"])


@each(CASES)
def test_image_equals_the_one_rank_image(case: Case, parity_results: Results) -> None:
    assert max(differences(case, parity_results)) <= case.threshold


@each(APPROXIMATE)
def test_an_approximate_image_is_as_far_as_published(case: Case, parity_results: Results) -> None:
    published = json.loads(RESULTS.read_text())["cases"][case.name]["differences"]
    assert differences(case, parity_results) == pytest.approx(published, rel=0.1)
    assert min(published) > 10 * case.threshold


@each(BROKEN)
def test_a_broken_case_is_seen(case: Case, parity_results: Results) -> None:
    assert min(differences(case, parity_results)) > 100 * case.threshold


@each(REFUSED)
def test_what_is_refused_would_give_a_wrong_image(case: Case, parity_results: Results) -> None:
    assert min(differences(case, parity_results)) > 100 * case.threshold


@each(FAULTS)
def test_the_fault_is_still_there_without_its_patch(case: Case, parity_results: Results) -> None:
    """Where this fails, xfuser has fixed the fault itself: drop the patch."""
    found = parity_results(case.world_size)[case.name]
    assert "error" in found or max(found["differences"]) > 20 * case.threshold
