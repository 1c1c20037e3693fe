"""FLOPs against seconds and joules."""

import json
from pathlib import Path

import pytest

import mlenergy.diffusion
from mlenergy.diffusion.cost.efficiency import dense_peak, efficiency
from mlenergy.diffusion.cost.flops import StageFlops

FLOPS = StageFlops(
    text_encode=5 * 10**12, denoise_step=74 * 10**12, vae_decode=10 * 10**12, steps=50
)  # 3,715 TFLOPs


def test_rates_of_a_known_run():
    found = efficiency(FLOPS, 7.43, 7430.0, devices=1, device_name="NVIDIA H200", dtype="bfloat16")
    assert found.tflops_per_iteration == 3715
    assert found.tflops_per_gpu == pytest.approx(500)
    assert found.mfu == pytest.approx(500 / 989.5)
    assert found.j_per_tflop == pytest.approx(2.0)
    assert "datasheet" in (found.peak_source or "")


def test_four_gpus_share_the_rate_and_not_the_joules():
    found = efficiency(FLOPS, 7.43, 3715.0, devices=4, device_name="NVIDIA H200", dtype="bfloat16")
    assert found.tflops_per_gpu == pytest.approx(125)
    assert found.j_per_tflop == pytest.approx(1.0)


def test_what_is_unknown_is_null_with_a_reason():
    found = efficiency(FLOPS, 7.43, None, devices=1, device_name="Some CPU", dtype="float32")
    assert found.mfu is None and "Some CPU" in (found.mfu_reason or "")
    assert found.j_per_tflop is None and found.j_per_tflop_reason == "no energy was read"
    assert found.tflops_per_gpu == pytest.approx(500)


def test_a_name_that_only_begins_like_a_known_one_has_no_peak():
    assert dense_peak("NVIDIA H200", "bfloat16").tflops == 989.5
    assert dense_peak("NVIDIA H200 MIG 1g.18gb", "bfloat16").tflops is None
    assert dense_peak("Tesla T4", "bfloat16").reason == "the vendor gives no bfloat16 peak for Tesla T4"


def test_no_time_is_an_error():
    with pytest.raises(ValueError, match="duration above 0"):
        efficiency(FLOPS, 0.0, 1.0, devices=1, device_name="NVIDIA H200", dtype="bfloat16")


def test_every_peak_names_its_source_and_dense_is_half_of_sparse():
    table = json.loads((Path(mlenergy.diffusion.__file__).parent / "data" / "gpu_peaks.json").read_text())
    names = [name for row in table["gpus"] for name in row["names"]]
    assert len(names) == len(set(names))
    for row in table["gpus"]:
        assert any(word in row["source"] for word in ("datasheet", "whitepaper", "specifications"))
        peaks = row["tflops"]
        assert peaks["float32"] < peaks["float16"]
        if "bfloat16" in peaks:
            assert peaks["bfloat16"] == peaks["float16"]
            assert peaks["tfloat32"] == pytest.approx(peaks["float16"] / 2, rel=0.02)
        if "float8" in peaks:
            assert peaks["float8"] == pytest.approx(2 * peaks["float16"], rel=0.02)
