"""Periods of the sampling process on a driver whose reads take long: wider, told, joules still right."""

from __future__ import annotations

import pytest
from driver_double import double_controls, true_energy_j


def case(gpus, **options):
    """A case whose every read of energy or power takes 4 ms."""
    return {
        "controls": double_controls(gpus=gpus, read_s=0.004, power="const:100"),
        "options": {"energy_gpus": ["all"], **options},
        "seconds": 1.5,
    }


def codes(measured):
    return [warning["code"] for warning in measured["warnings"]]


def test_one_reader_widens_its_periods_with_the_number_of_its_gpus(on_double):
    one, eight, fine = on_double(case(1), case(8), case(1, sample_period_s=0.01))
    for measured, gpus, asked_s in ((one, 1, 0.1), (eight, 8, 0.1), (fine, 1, 0.01)):
        sampling = measured["sampling"]
        assert (sampling["gpus"], sampling["requested_period_s"]) == (gpus, asked_s)
        # A read takes the driver's time, and on a busy machine some more.
        assert 0.004 * gpus <= sampling["read_s"] < 0.012 * gpus
        needed_s = 0.004 * gpus / 0.05
        assert needed_s <= sampling["counter_poll_s"] < 3 * needed_s
        assert max(asked_s, needed_s) <= sampling["period_s"] < max(0.2, 3 * needed_s)
        assert measured["timeline"]["period_s"] == sampling["period_s"]
        times_s = [
            time_s
            for time_s, uuid in zip(measured["timeline"]["time_s"], measured["timeline"]["uuid"], strict=True)
            if uuid == measured["timeline"]["uuid"][0]
        ]
        assert len(times_s) <= (times_s[-1] - times_s[0]) / max(asked_s, needed_s) + 3
    assert eight["sampling"]["period_s"] > 5 * one["sampling"]["period_s"]
    (told,) = [one["message"] for one in eight["warnings"] if one["code"] == "period_widened"]
    assert told.startswith("reading 8 GPUs of here takes ") and told.endswith(" s instead of every 0.1 s")
    assert "period_widened" in codes(fine)

    # The integral of sampled power is checked all the same.
    (iteration,), ((begin_s, end_s),) = eight["iterations"], eight["stamps"]
    truth_j = true_energy_j("const:100", begin_s, end_s)
    for gpu in iteration["energy"]["gpus"]:
        assert gpu["sampled_energy_j"] == pytest.approx(truth_j, rel=0.1)
        assert gpu["energy_j"] == pytest.approx(truth_j, rel=0.05)
    assert "power_mismatch" not in codes(eight)
