"""Energy between two moments, and the sampling process's file."""

from __future__ import annotations

import pytest

from mlenergy.diffusion.measure.energy.curves import CounterRead, Curve, Sample, Track
from mlenergy.diffusion.measure.energy.sampler import read_recording


def powers(*watts):
    """One sample a second."""
    return Track(samples=[Sample(float(t), power, None, None, None) for t, power in enumerate(watts)])


def test_a_ramp_is_the_sum_of_its_held_samples():
    track = powers(0.0, 100.0, 200.0, 300.0)
    assert track.power_curve == Curve((0.0, 1.0, 2.0, 3.0), (0.0, 0.0, 100.0, 300.0))
    assert track.sampled_j(1.0, 2.5) == pytest.approx(100 + 0.5 * 200)


def test_samples_without_a_power_are_bridged_by_the_one_before():
    assert powers(100.0, None, 200.0, 0.0).sampled_j(0.0, 3.0) == pytest.approx(2 * 100 + 200)


def test_nothing_is_told_of_moments_that_no_sample_covers():
    assert powers(100.0, 100.0).sampled_j(0.5, 1.5) is None
    assert powers(100.0).sampled_j(0.0, 0.0) is None


def test_the_part_of_a_track_between_two_moments():
    track = powers(1.0, 2.0, 3.0, 4.0)
    track.counter = [CounterRead(t - 0.1, float(t), 0.0) for t in range(4)]
    track.failures = [(0.5, 15, "counter"), (1.5, 15, "power")]
    part = track.within(1.0, 2.0)
    assert [sample.power_w for sample in part.samples] == [2.0, 3.0]
    assert [read.read_s for read in part.counter] == [1.0, 2.0]
    assert part.failures == [(1.5, 15, "power")]


def test_a_period_needs_three_known_moves():
    reads = [CounterRead(t / 10 - 0.01, t / 10, float(t)) for t in range(4)]
    assert Track(counter=reads).counter_period_s == pytest.approx(0.1)
    assert Track(counter=reads[:3]).counter_period_s is None


def test_lines_of_the_sampling_process_are_read_in_their_units(tmp_path):
    file = tmp_path / "samples"
    file.write_text(
        "c 1 10.000000 10.010000 123456789\n"
        "s 1 10.020000 512345 64 1980 4\n"
        "s 0 10.020000 - - - -\n"
        "e 0 10.030000 15 counter\n"
        "s 1 10.120000 5123"
    )
    tracks = read_recording(file).tracks
    assert tracks[1].counter == [CounterRead(10.0, 10.01, 123456.789)]
    assert tracks[1].samples == [Sample(10.02, 512.345, 64, 1980, 4)]
    assert tracks[0].samples == [Sample(10.02, None, None, None, None)]
    assert tracks[0].failures == [(10.03, 15, "counter")]
