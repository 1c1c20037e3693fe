"""Verdicts on points with intervals; the properties are tried on many random ones."""

from __future__ import annotations

import random

from mlenergy.diffusion.measure.starts import Interval
from mlenergy.diffusion.tune.pareto import Point, judge, unsettled_pairs


def point(number: int, *values: tuple[float, float]) -> Point:
    """From means and half-widths."""
    return Point(number, tuple(Interval(mean, mean - half, mean + half) for mean, half in values))


def random_points(chance: random.Random) -> list[Point]:
    count, objectives, width = chance.randint(1, 8), chance.choice((1, 2)), chance.choice((0, 0.1, 1))
    # Whole numbers, so that ties come up too.
    return [
        point(n, *((chance.randint(1, 6), width * chance.random()) for _ in range(objectives)))
        for n in range(count)
    ]


def draw(chance: random.Random, points: list[Point]) -> dict[int, tuple[float, ...]]:
    """True means that the intervals allow."""
    return {p.number: tuple(chance.uniform(v.low, v.high) for v in p.values) for p in points}


def is_beaten(true: dict[int, tuple[float, ...]], number: int) -> bool:
    """True where another point is at least as good everywhere and better somewhere."""
    return any(
        other != true[number] and all(a <= b for a, b in zip(other, true[number], strict=True))
        for other in true.values()
    )


def test_no_true_means_within_the_intervals_contradict_a_verdict() -> None:
    for seed in range(300):
        chance = random.Random(seed)
        points = random_points(chance)
        verdicts = judge(points)
        for _ in range(20):
            true = draw(chance, points)
            for number, verdict in verdicts.items():
                if verdict.dominated_by is not None:
                    assert is_beaten(true, number), seed
                if verdict.is_sure:
                    assert not is_beaten(true, number), seed


def test_the_front_holds_none_that_is_dominated_and_drops_none_that_is_not() -> None:
    for seed in range(300):
        points = random_points(random.Random(seed))
        verdicts = judge(points)
        means = {p.number: tuple(value.mean for value in p.values) for p in points}
        front = {number for number, verdict in verdicts.items() if verdict.on_front}
        assert front, seed
        for number, verdict in verdicts.items():
            if verdict.dominated_by is not None:
                assert number not in front, seed
                assert verdicts[verdict.dominated_by].dominated_by is None, seed
            # By their means, the points of the front are all that nothing beats.
            assert (number in front) == (not is_beaten(means, number)), seed
            assert number in front or not verdict.is_sure, seed


def test_four_points_in_a_circle_leave_a_front() -> None:
    # Each is certainly better than the next in one objective, and not certainly worse in the other.
    circle = [
        point(1, (1, 0.1), (3, 0.1)),
        point(2, (2, 0.1), (2, 1.5)),
        point(3, (3, 0.1), (1, 0.1)),
        point(4, (2, 1.5), (2, 0.1)),
    ]
    verdicts = judge(circle)
    assert all(verdict.dominated_by is None for verdict in verdicts.values())
    assert verdicts[1].on_front
    assert verdicts[3].on_front


def test_which_pairs_more_measuring_could_part() -> None:
    fast, frugal = point(1, (1, 0.1), (9, 0.1)), point(2, (9, 0.1), (1, 0.1))
    assert unsettled_pairs([fast, frugal], 0.01) == []
    near = point(3, (1.15, 0.1), (9.1, 0.1))
    assert unsettled_pairs([fast, frugal, near], 0.01) == [(1, 3)]
    # Wide intervals of what is dominated anyway are nobody's business.
    behind = point(4, (20, 5), (20, 5))
    assert unsettled_pairs([fast, behind, point(5, (21, 5), (21, 5))], 0.01) == []
    # Both known to within the tolerance: equal, as far as anyone asked.
    assert unsettled_pairs([fast, near], 0.11) == []
    assert judge([fast, near])[1].may_lose_to == (3,)


def test_equal_points_share_the_front() -> None:
    verdicts = judge([point(1, (1, 0), (1, 0)), point(2, (1, 0), (1, 0))])
    assert [verdict.on_front for verdict in verdicts.values()] == [True, True]
