"""What the models offer, what the tests have shown and what the page says are one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_cuda_cases import SHOWN
from parity_cases import CASES, EVERYTHING, FAULTS
from parity_page import proven, render
from parity_run import RESULTS

from mlenergy.diffusion.engines.diffusers.context_parallel import KNOWN_FAULTS as DIFFUSERS_FAULTS
from mlenergy.diffusion.engines.xdit.patches.registry import KNOWN_FAULTS
from mlenergy.diffusion.models.families import FAMILIES
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.models.spec import EngineName, Family

PAGE = Path(__file__).resolve().parents[2] / "docs" / "capabilities.md"
REFRESH = "run python scripts/capabilities.py --measure"


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return dict(json.loads(RESULTS.read_text()))


def test_the_page_is_made_from_the_results(results: dict[str, Any]) -> None:
    assert PAGE.read_text() == render(results), "run python scripts/capabilities.py"


def test_the_results_are_of_these_cases(results: dict[str, Any]) -> None:
    assert sorted(results["cases"]) == sorted(case.name for case in EVERYTHING), REFRESH
    assert len(results["cases"]) == len(EVERYTHING), "two cases have one name"


def test_no_case_of_the_results_fails(results: dict[str, Any]) -> None:
    assert [case.name for case in CASES if not proven(results["cases"], case)] == [], REFRESH


@pytest.mark.parametrize("engine", ["xdit", "diffusers"])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_offered_modes_are_the_proven_ones(
    family: Family, engine: EngineName, results: dict[str, Any]
) -> None:
    mine = [case for case in CASES if case.engine == engine and BY_ID[case.model].family is family]
    shown = {mode for case in mine if proven(results["cases"], case) for mode in case.degrees.modes}
    assert family.modes.get(engine, frozenset()) == shown


def test_every_patch_has_a_test_that_shows_its_fault() -> None:
    shown = {name for case in FAULTS for name in case.without_patches if case.engine == "xdit"}
    # tests/engines/test_xdit_patches.py counts the groups; on fake GPUs test_fake_cuda.py shows the others.
    elsewhere = {"parallel-vae-groups", *(name for case in SHOWN.values() for name in case.without)}
    assert {fault.name for fault in KNOWN_FAULTS} == shown | elsewhere
    of_diffusers = {name for case in FAULTS for name in case.without_patches if case.engine == "diffusers"}
    assert set(DIFFUSERS_FAULTS) == of_diffusers


def test_the_page_names_no_machine(results: dict[str, Any]) -> None:
    assert not re.search(r"/work|/root|127\.0\.0\.1", RESULTS.read_text() + PAGE.read_text())
