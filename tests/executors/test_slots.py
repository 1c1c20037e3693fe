"""Places for processes: never shared, never lost, always in their order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlenergy.diffusion.executors.local import Slots

GPUS = ("GPU-b", "GPU-a", "GPU-d", "GPU-c")


@given(st.lists(st.integers(-3, 4), max_size=30), st.booleans())
def test_places_are_taken_once_and_come_back_in_their_order(steps, alone):
    """A positive step asks for so many places, another gives back what was taken longest ago or last."""
    slots, held = Slots(GPUS, alone=alone), []
    for step in steps:
        free = [gpu for gpu in GPUS if not any(gpu in places for places in held)]
        if step <= 0:
            if held:
                slots.release(held.pop(0 if step == 0 else -1))
            continue
        places = slots.acquire(step)
        if step > len(free) or (alone and held):
            assert places is None
        else:
            assert places == tuple(free[:step])
            held.append(places)


def test_places_without_a_name_are_counted():
    slots = Slots(unnamed=3)
    assert (slots.total, slots.described) == (3, "3 slots") and Slots(GPUS).described == "4 GPUs"
    assert slots.acquire(2) == ("", "") and slots.acquire(2) is None and slots.acquire(1) == ("",)
    slots.release(("", ""))
    assert slots.acquire(2) == ("", "")
