"""Conditions against Python's own meaning of them, for any values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlenergy.diffusion.sweep.conditions import Condition

REPEAT = "repeat"
NUMBER = st.integers(-4, 8)


@pytest.fixture(scope="module")
def names():
    (batch,), (steps,) = Condition.parse("batch_size").names, Condition.parse("inference_steps").names
    return batch, steps


TEXTS = (
    *(f"batch_size {op} inference_steps" for op in ("==", "!=", "<", "<=", ">", ">=")),
    *("batch_size < inference_steps < 4", "1 <= batch_size <= inference_steps", "batch_size in [1, 2, 4]"),
    *(
        "batch_size not in [1, 2, 4]",
        "not batch_size > 2",
        "batch_size == -2",
        "batch_size - inference_steps > -1",
    ),
    *("batch_size > 1 and inference_steps > 1", "batch_size > 1 or inference_steps > 1"),
    *("batch_size > 1 and inference_steps > 1 or repeat == 2", "batch_size * 2 == inference_steps + 1"),
    *("batch_size % 2 == 0", "inference_steps // 2 == batch_size", "not (batch_size > 1 and repeat == 1)"),
)


@pytest.mark.parametrize("text", TEXTS)
@given(NUMBER, NUMBER, st.integers(1, 3))
def test_a_condition_over_known_numbers_means_what_python_means(names, text, batch, steps, repeat):
    own = {"batch_size": batch, "inference_steps": steps, "repeat": repeat}
    expected = bool(eval(text, {"__builtins__": {}}, own))
    assert (
        Condition.parse(text).holds(dict(zip(names, (batch, steps), strict=True)) | {REPEAT: repeat})
        is expected
    )


@given(NUMBER, st.sampled_from(["<", "<=", ">", ">="]))
def test_comparing_what_is_not_set_is_false_either_way(number, op):
    assert not Condition.parse(f"batch_size {op} {number}").holds({})
    assert not Condition.parse(f"{number} {op} batch_size").holds({})
    assert not Condition.parse(f"batch_size + 1 {op} {number}").holds({})
    assert Condition.parse("batch_size == null").holds({})


@given(
    st.dictionaries(
        st.sampled_from(["batch_size", "inference_steps"]), NUMBER | st.lists(NUMBER), min_size=1
    ),
    NUMBER,
    NUMBER,
)
def test_a_mapping_means_that_each_of_its_options_has_or_is_among_these(names, wanted, batch, steps):
    own = {"batch_size": batch, "inference_steps": steps}
    expected = all(own[k] in v if isinstance(v, list) else own[k] == v for k, v in wanted.items())
    assert Condition.parse(wanted).holds(dict(zip(names, (batch, steps), strict=True))) is expected
