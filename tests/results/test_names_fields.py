"""Every field of a plan in turn: two set-ups that differ in one field have two folders and two digests."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import pytest
from result_samples import make_plan

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.results.names import folder_name, identity_digest

# No part of the set-up, or no plain value: `spec` has a test of its own below.
APART = {"base_dir", "spec", "parallel", "optimizations", "weights_from", "preset"}
BASE = make_plan()
PARTS = {"": Plan, "parallel": Parallelism, "optimizations": Optimizations}
FIELDS = [(part, f.name) for part, kind in PARTS.items() for f in fields(kind) if part or f.name not in APART]


def others(value, annotation):
    """Values that a field may have instead, of which each two differ in little."""
    if "bool" in annotation:
        return [not value]
    if "tuple" in annotation:
        return [("a",), ("b",), ("a", "b"), ("a", "c")]
    if "int" in annotation and "float" not in annotation:
        return [(value or 0) + 1, (value or 0) + 10, (value or 0) + 11]
    if "float" in annotation:
        return [(value or 0) + step for step in (0.5, 0.25, 0.01, 0.001, 1e-7)]
    return ["one", "two", "one/two", "one_two", "a" * 70 + "b", "a" * 70 + "c"]


def with_field(part, name, value):
    if not part:
        return replace(BASE, **{name: value})
    return replace(BASE, **{part: replace(getattr(BASE, part), **{name: value})})


@pytest.mark.parametrize(("part", "name"), FIELDS)
def test_each_value_of_each_field_has_a_folder_and_a_digest_of_its_own(part, name):
    owner = getattr(BASE, part) if part else BASE
    annotation = str(next(f.type for f in fields(owner) if f.name == name))
    own = getattr(owner, name)
    assert not is_dataclass(own), f"{name}: a part with fields of its own belongs in PARTS"
    plans = [BASE, *(with_field(part, name, value) for value in others(own, annotation))]
    assert len({folder_name(plan) for plan in plans}) == len(plans)
    assert len({identity_digest(plan) for plan in plans}) == len(plans)
    for plan in plans:  # the cut of a long name does not lose the digest
        long = replace(plan, dataset="/data/" + "x" * 300)
        assert folder_name(long).endswith(f"+id-{identity_digest(long)}")


def test_two_folders_of_weights_are_two_set_ups_but_for_listed_models():
    own = [
        replace(BASE, spec=replace(BASE.spec, model_id="own"), weights_from=place) for place in ("/a", "/b")
    ]
    assert folder_name(own[0]) != folder_name(own[1])
    cached = [replace(BASE, spec=BY_ID["tiny/flux"], weights_from=place) for place in ("/a", "/b")]
    assert folder_name(cached[0]) == folder_name(cached[1])


def test_where_results_go_is_no_part_of_the_set_up():
    long = {"dataset": "/data/" + "x" * 300}
    assert folder_name(make_plan("a", **long)) == folder_name(make_plan("b", **long))
