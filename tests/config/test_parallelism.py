import math

import pytest

from mlenergy.diffusion.config.parallelism import Parallelism, share_out
from mlenergy.diffusion.errors import UserError


@pytest.mark.parametrize(
    ("ulysses", "ring", "world", "heads", "expected"),
    [
        (None, None, 1, 24, (1, 1)),
        (None, None, 4, 24, (4, 1)),
        (None, None, 16, 24, (8, 2)),  # 16 does not divide 24 heads, 8 does, ring takes the rest
        (None, None, 5, 24, (1, 5)),
        (2, None, 8, 24, (2, 4)),
        (None, 2, 8, 24, (4, 2)),
        (2, 2, 4, 24, (2, 2)),
        (2, 3, None, 24, (2, 3)),
        (None, None, None, 24, (1, 1)),
        (None, None, 6, None, (6, 1)),
    ],
)
def test_open_degrees_take_what_is_left(ulysses, ring, world, heads, expected):
    assert share_out(ulysses, ring, {}, world, heads) == expected


def test_mismatch_shows_the_arithmetic_and_what_fits():
    with pytest.raises(UserError) as error:
        share_out(8, 2, {}, 8, 24)
    line = str(error.value)
    assert line.startswith("--ulysses_degree 8 x --ring_degree 2 = 16, but 8 processes were started; use ")
    assert "--ulysses_degree 8 --ring_degree 1" in line
    assert "--ulysses_degree 1 --ring_degree 8" in line
    assert line.endswith("or start 16 processes (--nproc_per_node=16)")


def test_every_offered_degree_fits():
    with pytest.raises(UserError) as error:
        share_out(5, 1, {}, 12, 24)
    for pair in str(error.value).split("use ")[1].split(", or start")[0].split(" or "):
        ulysses, ring = (int(word) for word in pair.split() if word.isdigit())
        assert ulysses * ring == 12
        assert 24 % ulysses == 0


@pytest.mark.parametrize("bad", [{"ulysses": 0, "ring": 1}, {"ulysses": 1, "ring": -2}])
def test_degrees_below_one_are_refused(bad):
    with pytest.raises(UserError, match="below 1"):
        share_out(bad["ulysses"], bad["ring"], {}, 1, 24)


def test_world_size_is_the_product():
    degrees = Parallelism(data=2, cfg=2, pipefusion=3, ring=5, ulysses=7, tensor=1)
    assert degrees.world_size == math.prod((2, 2, 3, 5, 7))
    assert degrees.sequence == 35
