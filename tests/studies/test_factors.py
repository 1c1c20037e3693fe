"""Factors over a baseline: which way round, with which interval, and what makes them unknown."""

import math
import statistics

import pytest
from scipy import stats
from study_cells import measured, refused

from mlenergy.diffusion.studies.content import Gap, Measured
from mlenergy.diffusion.studies.factors import effect_of, factors_of

GIB = 2**30


@pytest.fixture
def base(tmp_path):
    return measured(tmp_path / "base", {}, (8.0, 8.4, 8.2), joules=(900.0, 940.0, 920.0), peak_bytes=40 * GIB)


def test_twice_as_fast_is_a_factor_of_two_with_welchs_interval(tmp_path, base):
    fast, slow = (4.0, 4.3, 4.3), (8.0, 8.4, 8.2)
    cell = measured(tmp_path / "fast", {}, fast, joules=(230.0, 230.0, 230.0), peak_bytes=10 * GIB)
    found = factors_of(cell, base)
    speed = found["speed_factor"]
    assert isinstance(speed, Measured)
    assert speed.value == pytest.approx(statistics.mean(slow) / statistics.mean(fast))
    # Welch on logarithms by the delta method, as docs/reports.md has it.
    shares = [statistics.stdev(of) / math.sqrt(3) / statistics.mean(of) for of in (slow, fast)]
    variance = sum(share**2 for share in shares)
    freedom = variance**2 / sum(share**4 / 2 for share in shares)
    width = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    assert speed.low == pytest.approx(speed.value * math.exp(-width), rel=1e-3)
    assert speed.high == pytest.approx(speed.value * math.exp(width), rel=1e-3)
    energy, memory = found["energy_factor"], found["memory_factor"]
    assert isinstance(energy, Measured) and energy.value == pytest.approx(4)
    assert memory == Measured(4.0)


def test_the_baseline_is_one_without_an_interval(base):
    assert factors_of(base, base) == dict.fromkeys(
        ("speed_factor", "energy_factor", "memory_factor"), Measured(1.0)
    )


def test_the_baseline_has_no_factor_of_what_is_not_known(tmp_path):
    cell = measured(tmp_path / "cpu", {}, peak_bytes=None)
    found = factors_of(cell, cell)
    assert found["speed_factor"] == Measured(1.0)
    assert "no GPU takes part" in found["energy_factor"].reason and "reason" in vars(found["memory_factor"])


def test_what_is_not_known_is_a_gap_with_its_reason(tmp_path, base):
    cell = measured(tmp_path / "cpu", {}, (1.0, 1.1), peak_bytes=None)
    found = factors_of(cell, base)
    assert isinstance(found["speed_factor"], Measured)
    assert "no GPU takes part" in found["energy_factor"].reason
    assert isinstance(found["memory_factor"], Gap)
    assert factors_of(base, cell)["energy_factor"] == found["energy_factor"]  # the baseline's reason
    gap = refused({}, "offload needs a GPU")
    assert set(factors_of(gap, base).values()) == {Gap("offload needs a GPU")}
    assert "the baseline has no result: offload needs" in factors_of(base, gap)["speed_factor"].reason


def test_a_doubtful_side_makes_the_factor_doubtful(tmp_path, base):
    cell = measured(tmp_path / "one", {}, warnings=[("drift", "it drifted"), ("counter_backwards", "back")])
    found = factors_of(cell, base)
    assert found["speed_factor"].doubts == ("it drifted",)
    assert factors_of(base, cell)["speed_factor"].doubts == ("it drifted",)


def test_the_effect_of_a_level_is_the_geometric_mean_over_its_pairs(tmp_path):
    without = [measured(tmp_path / f"off-{n}", {}, (s, s)) for n, s in enumerate((8.0, 6.0, 1.0))]
    with_it = [measured(tmp_path / "on-0", {}, (2.0, 2.0)), measured(tmp_path / "on-1", {}, (6.0, 6.0))]
    partners = dict(zip(map(id, without), [*with_it, refused({}, "no")], strict=True))
    effect = effect_of("speed", without, lambda cell: partners[id(cell)])
    assert effect is not None
    assert (effect.pairs, effect.least, effect.most) == (2, 1, 4)
    assert effect.geometric_mean == pytest.approx(2)
    assert effect_of("speed", without, lambda cell: None) is None
