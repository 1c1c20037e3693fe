"""Joules against the double's known truth, through the real nvidia-ml-py and the real Zeus."""

from __future__ import annotations

import itertools
import statistics

import pytest
from driver_double import double_controls, true_energy_j, uuid

CURVES = ["const:300", "square:100:400:0.7:0.3", "const:123.4", "square:50:700:0.31:0.5"]


def all_gpus(count, **more):
    """A case that reads so many GPUs for windows of 2 s, each on a curve of its own."""
    power = ";".join(CURVES[i % len(CURVES)] for i in range(count))
    return {
        "controls": double_controls(gpus=count, power=power),
        "options": {"energy_gpus": ["all"]},
        "seconds": 2.0,
        "windows": 3,
        **more,
    }


def test_joules_are_the_known_integral_for_one_to_eight_gpus(on_double):
    counts = (1, 2, 8)
    for count, measured in zip(counts, on_double(*(all_gpus(count) for count in counts)), strict=True):
        assert [iteration["energy"]["source"] for iteration in measured["iterations"]] == ["nvml_counter"] * 3
        for gpu in range(count):
            errors = []
            for iteration, (begin, end) in zip(measured["iterations"], measured["stamps"], strict=True):
                reading = iteration["energy"]["gpus"][gpu]
                assert reading["uuid"] == uuid(gpu)
                truth = true_energy_j(CURVES[gpu % len(CURVES)], begin, end)
                errors.append(abs(reading["energy_j"] / truth - 1))
            # The scheduler may come between the counter and the stamp once, not as a rule.
            assert statistics.median(errors) < 0.001, (count, gpu, errors)
        per_gpu = [gpu["energy_j"] for gpu in measured["iterations"][0]["energy"]["gpus"]]
        assert len(per_gpu) == count
        assert measured["gpu_energy_j"][0] == pytest.approx(sum(per_gpu))


def test_only_the_gpu_that_takes_part_is_read(on_double):
    case = {"gpu": uuid(2), "seconds": 0.3, "controls": {}}
    (measured,) = on_double(case, gpus=4, power="const:100;const:200;const:300;const:400")
    (reading,) = measured["iterations"][0]["energy"]["gpus"]
    begin, end = measured["stamps"][0]
    assert reading["uuid"] == uuid(2) and reading["node"] == "here"
    assert reading["energy_j"] == pytest.approx(300 * (end - begin), rel=0.05)


def test_visible_devices_do_not_change_what_is_read(on_double):
    orders = ["3,1", "1", f"{uuid(3)},{uuid(1)}", "", "MIG-9"]
    cases = [
        {"gpu": uuid(3), "seconds": 0.3, "controls": {"CUDA_VISIBLE_DEVICES": order}} for order in orders
    ]
    for measured in on_double(*cases, gpus=4, power="const:100;const:200;const:300;const:400"):
        (reading,) = measured["iterations"][0]["energy"]["gpus"]
        begin, end = measured["stamps"][0]
        assert reading["uuid"] == uuid(3)
        assert reading["energy_j"] == pytest.approx(400 * (end - begin), rel=0.05)


def test_named_devices_are_read_instead(on_double):
    def case(*names):
        return {"gpu": uuid(0), "seconds": 0.2, "options": {"energy_gpus": list(names)}}

    by_index, by_uuid, twice, unknown = on_double(
        case("1", "2"), case(uuid(3)), case("1", uuid(1)), case("7"), gpus=4
    )
    assert by_index["read_here"] == [uuid(1), uuid(2)]
    assert by_uuid["read_here"] == [uuid(3)]
    assert twice["read_here"] == [uuid(1)]
    assert unknown["error"].startswith("--energy_gpus 7 is no GPU of this run's nodes; there are: 0 (GPU-")


def test_a_mig_slice_is_refused_with_a_reason(on_double):
    whole = {"gpu": uuid(0), "seconds": 0.2}
    slice_ = {"gpu": "MIG-1234", "seconds": 0.2}
    named = {**slice_, "options": {"energy_gpus": ["0"]}}
    for measured in on_double(whole, slice_, mig=1):
        energy = measured["iterations"][0]["energy"]
        assert energy["source"] == "none" and measured["gpu_energy_j"] == [None]
        assert "MIG slice" in energy["reason"] and "--energy_gpus" in energy["reason"]
    (measured,) = on_double(named, mig=1)
    assert measured["gpu_energy_j"][0] > 0


def test_no_driver_gives_null_and_the_reason(on_double):
    case = {"gpu": uuid(0), "seconds": 0.1}
    required = {**case, "options": {"require_energy": True}}
    measured, refused = on_double(case, required, fail="nvmlInitWithFlags=9")
    energy = measured["iterations"][0]["energy"]
    assert energy["source"] == "none" and measured["gpu_energy_j"] == [None]
    assert "Driver Not Loaded" in energy["reason"]
    assert refused["error"].startswith("--require_energy was given, but energy cannot be read: ")
    assert "Driver Not Loaded" in refused["error"]


def test_a_counter_that_cannot_be_read_from_the_start(on_double):
    (measured,) = on_double(
        {"gpu": uuid(1), "seconds": 0.2}, gpus=2, fail="nvmlDeviceGetTotalEnergyConsumption@1=999"
    )
    energy = measured["iterations"][0]["energy"]
    assert energy["source"] == "none" and "Unknown Error" in energy["reason"]
    assert "counter_unreadable" in energy["marks"]


def codes(measured):
    return {warning["code"] for warning in measured["warnings"]}


def windows(measured):
    return [iteration["energy"] for iteration in measured["iterations"]]


def test_what_goes_wrong_during_a_run_marks_the_windows_and_is_told(on_double):
    def case(**during):
        return {"gpu": uuid(0), "seconds": 0.6, "windows": 3, "during": double_controls(**during)}

    lost, backwards, still, throttled, capped = on_double(
        case(fail="nvmlDeviceGetTotalEnergyConsumption@0=15>THEN+0.9"),
        case(counter_reset="THEN+0.9"),
        case(counter_still="THEN+0.3"),
        case(events="0x48", events_from="THEN+0.9"),
        case(events="0x4"),
    )
    assert [w["source"] for w in windows(lost)] == ["nvml_counter", "none", "none"]
    assert "GPU 0" in windows(lost)[2]["reason"] and "GPU is lost" in windows(lost)[2]["reason"]
    assert "counter_unreadable" in windows(lost)[2]["marks"] and "counter_unreadable" in codes(lost)
    assert lost["gpu_energy_j"][0] > 0 and lost["gpu_energy_j"][1:] == [None, None]

    assert [w["source"] for w in windows(backwards)] == ["nvml_counter", "none", "nvml_counter"]
    assert "went backwards" in windows(backwards)[1]["reason"] and "counter_backwards" in codes(backwards)

    assert windows(still)[0]["source"] == "nvml_counter"
    assert windows(still)[2]["source"] == "none" and "stood still" in windows(still)[2]["reason"]
    assert "counter_stood_still" in codes(still)

    assert ["throttle" in w["marks"] for w in windows(throttled)] == [False, True, True]
    (text,) = [w["message"] for w in throttled["warnings"] if w["code"] == "throttle"]
    assert text.startswith(
        "the GPU was throttled: 2 of 3 windows on here (hardware slowdown, hardware thermal"
    )
    assert [w["source"] for w in windows(throttled)] == ["nvml_counter"] * 3
    assert ["power_cap" in w["marks"] for w in windows(capped)] == [True] * 3 and "throttle" not in codes(
        capped
    )


def test_windows_shorter_than_ten_counter_periods_are_flagged(on_double):
    case = {"gpu": uuid(0), "seconds": 0.5, "windows": 3}
    slow, quick = on_double(*({**case, "controls": double_controls(counter_s=s)} for s in (0.1, 0.02)))
    assert slow["counter_period_s"][uuid(0)] == pytest.approx(0.1, rel=0.1)
    assert quick["counter_period_s"][uuid(0)] == pytest.approx(0.02, rel=0.25)
    assert "short_window" in codes(slow) and "short_window" not in codes(quick)
    (text,) = [w["message"] for w in slow["warnings"] if w["code"] == "short_window"]
    assert "3 of 3 windows on here (period 0.1" in text


def test_a_counter_that_disagrees_with_sampled_power_is_flagged(on_double):
    case = {"gpu": uuid(0), "seconds": 1.5, "windows": 2}
    honest, wrong = on_double(case, {**case, "controls": double_controls(counter_scale=1.2)})
    assert "power_mismatch" not in codes(honest)
    reading = windows(honest)[0]["gpus"][0]
    assert reading["sampled_energy_j"] == pytest.approx(reading["energy_j"], rel=0.02)
    (text,) = [w["message"] for w in wrong["warnings"] if w["code"] == "power_mismatch"]
    assert "-16.7%" in text or "-16.6%" in text or "-16.8%" in text


def test_an_old_gpu_is_measured_by_held_power_samples_and_marked(on_double):
    powers = ["const:250", "square:100:400:1.1:0.4"]
    options = {"sample_period_s": 0.02}
    cases = [
        {
            "gpu": uuid(0),
            "seconds": 2.0,
            "windows": 2,
            "options": options,
            "controls": double_controls(power=power),
        }
        for power in powers
    ]
    for power, measured in zip(powers, on_double(*cases, arch=4), strict=True):
        assert "sampled_power" in codes(measured)
        for energy, (begin, end) in zip(windows(measured), measured["stamps"], strict=True):
            assert energy["source"] == "sampled_power" and energy["sample_period_s"] == 0.02
            truth = true_energy_j(power, begin, end)
            assert energy["gpus"][0]["energy_j"] == pytest.approx(truth, rel=0.03)


def test_idle_power_is_taken_off(on_double):
    options = {"idle_s": 1.0}
    case = {
        "gpu": uuid(1),
        "seconds": 1.0,
        "options": options,
        "during": double_controls(power="const:60;const:360"),
    }
    (measured,) = on_double(case, gpus=2, power="const:60;const:90")
    assert measured["idle_power_w"] == {uuid(1): pytest.approx(90)}
    (iteration,) = measured["iterations"]
    above = iteration["energy_above_idle_j"]
    assert above == pytest.approx(measured["gpu_energy_j"][0] - 90 * iteration["duration_s"])


def test_the_timeline_covers_all_windows(on_double):
    case = {"options": {"energy_gpus": ["all"], "sample_period_s": 0.05}, "seconds": 0.6, "windows": 2}
    (measured,) = on_double(case, gpus=2, power="const:111;const:222")
    line = measured["timeline"]
    lengths = {len(column) for name, column in line.items() if name != "period_s"}
    assert len(lengths) == 1 and lengths.pop() > 30
    line.pop("period_s")
    rows = [dict(zip(line, row, strict=True)) for row in zip(*line.values(), strict=True)]
    second = [row for row in rows if row["uuid"] == uuid(1)]
    assert {row["power_w"] for row in second} == {222.0}
    figures = {(row["temperature_c"], row["sm_clock_mhz"], row["event_reasons"]) for row in second}
    assert figures == {(41, 1500, 0)}
    assert second[0]["time_s"] < 0 and second[0]["window"] is None
    assert {row["window"] for row in second} >= {0, 1}
    end_s = measured["stamps"][-1][1] - measured["stamps"][0][0]
    assert second[-1]["time_s"] > end_s - 0.001
    gaps = [b["time_s"] - a["time_s"] for a, b in itertools.pairwise(second)]
    assert statistics.median(gaps) == pytest.approx(0.05, rel=0.2)
