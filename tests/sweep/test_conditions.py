import pytest

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.sweep.conditions import Condition

VALUES = {"ulysses_degree": 2, "workload.batch_size": 4, "workload.model_id": "tiny/flux", "processes": 8}


@pytest.mark.parametrize(
    "text",
    [
        "ulysses_degree == 2",
        "workload.batch_size >= 4",
        "batch_size > 1 and ulysses_degree < 4",
        "model_id in ['tiny/flux', 'tiny/sd3']",
        "not ring_degree",
        "ring_degree == null",
        "ulysses_degree * batch_size == processes",
        "1 < batch_size <= 4",
        "batch_size % 2 == 0 or false",
        "{'ulysses_degree': 2, 'batch_size': [1, 4]}",
    ],
)
def test_holds(text: str) -> None:
    written = {"ulysses_degree": 2, "batch_size": [1, 4]} if text.startswith("{") else text
    assert Condition.parse(written).holds(VALUES)


@pytest.mark.parametrize(
    "text",
    [
        "ulysses_degree != 2",
        "ring_degree > 1",  # not set: null, which is neither more nor less
        "ring_degree * 2 > 1",
        "model_id > 3",
        "batch_size not in [4]",
        "{'batch_size': 1}",
    ],
)
def test_does_not_hold(text: str) -> None:
    written = {"batch_size": 1} if text.startswith("{") else text
    assert not Condition.parse(written).holds(VALUES)


@pytest.mark.parametrize("text", ["__import__('os').system('true')", "a b", "[x for x in 1]", "batch_size :"])
def test_refuses_what_it_does_not_know(text: str) -> None:
    with pytest.raises(UserError, match=r"is not understood; write option names|there is no option"):
        Condition.parse(text)


def test_names_the_nearest_option() -> None:
    with pytest.raises(UserError, match=r"no option 'ulyses_degree'; did you mean ulysses_degree\?"):
        Condition.parse("ulyses_degree > 1")
