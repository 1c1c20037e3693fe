"""The study `vram`: the series of batches, requirements and cards, on results with known memory."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from result_samples import make_plan

from mlenergy.diffusion.studies.cards import card_of, cards, requirement_of, smallest_card
from mlenergy.diffusion.studies.files import report_json
from mlenergy.diffusion.studies.vram import VramOptions, is_out_of_gpu_memory, next_batch, report, sweeps
from mlenergy.diffusion.supervision.out_of_memory import OutOfMemory
from mlenergy.diffusion.supervision.status import StatusFile, describe

from .conftest import gpu_result

MIB, GB = 1 << 20, 10**9
MODEL = "stabilityai/sdxl-turbo"
OPTIONS = VramOptions(models=(MODEL,), margin=0.25)


@given(capacity=st.integers(0, 5000), most=st.integers(1, 5000))
def test_the_series_ends_within_an_eighth_of_what_fits(capacity, most):
    fits: dict[int, bool | None] = {}
    while (batch := next_batch(fits, most)) is not None:
        assert 1 <= batch <= most and batch not in fits
        fits[batch] = batch <= capacity
    largest = max((batch for batch, ran in fits.items() if ran), default=0)
    if capacity >= most:
        assert largest == most
    else:
        assert largest <= capacity <= largest + max(1, largest // 8)
    assert len(fits) <= 2 * most.bit_length() + 3


def test_the_series():
    fits: dict[int, bool | None] = {}
    tried = []
    while (batch := next_batch(fits, 256)) is not None:
        tried.append(batch)
        fits[batch] = batch <= 21
    assert tried == [1, 2, 4, 8, 16, 32, 24, 20, 22]


def test_a_batch_without_an_answer_ends_the_series():
    assert next_batch({1: True, 2: None}, 256) is None
    assert next_batch({1: False}, 256) is None


def test_the_requirement_counts_the_drivers_context_once():
    needed = requirement_of(5000, 6000, 6400, shared=False, margin=0.25)
    assert (needed.minimum_bytes, needed.recommended_bytes, needed.doubt) == (5400, 8000, None)


@pytest.mark.parametrize(
    ("used", "shared", "why"), [(None, False, "the driver did not tell"), (9000, True, "other processes")]
)
def test_without_the_drivers_figure_the_requirement_is_doubtful(used, shared, why):
    needed = requirement_of(5000, 6000, used, shared, margin=0.5)
    assert (needed.minimum_bytes, needed.recommended_bytes) == (5000, 9000)
    assert why in (needed.doubt or "")


def test_the_smallest_card_has_the_memory_and_no_smaller_one_has():
    sizes = {card.memory_bytes for card in cards()}
    assert len(sizes) == len(cards()) and [*sorted(sizes)] == [card.memory_bytes for card in cards()]
    for needed in (1, 8 * 1024 * MIB, 8188 * MIB, 8188 * MIB + 1, 80_000 * MIB):
        card = smallest_card(needed)
        assert card is not None and card.memory_bytes >= needed
        assert not any(needed <= size < card.memory_bytes for size in sizes)
    assert smallest_card(8188 * MIB).name == "GeForce RTX 4060 8 GB"
    assert smallest_card(max(sizes) + 1) is None


def with_memory(batch, peak_gb, *, reserved_gb=None, used_gb=None, card_gib=24, warnings=()):
    """A result of one H200-like card with these figures."""
    content = gpu_result(0.5, batch_size=batch, peak_bytes=int(peak_gb * GB), warnings=warnings)
    content["memory"] |= {
        "peak_rank": 0,
        "peak_reserved_bytes": None if reserved_gb is None else int(reserved_gb * GB),
        "driver_used_bytes": None if used_gb is None else int(used_gb * GB),
    }
    card = {"uuid": "GPU-a", "name": "NVIDIA L4", "memory_bytes": card_gib * 1024 * MIB}
    environment = {**content["environment"], "devices": [{"uuid": "GPU-a", "name": "NVIDIA L4", "index": 0}]}
    environment["nodes"] = [{**environment["nodes"][0], "gpus": [card]}]
    return {**content, "environment": environment}


def told(make_cell, make_outcome, *contents, **more):
    cells = [
        make_cell(one, sweep=f"round-{n}", model_id=MODEL, batch_size=2 ** (n - 1))
        for n, one in enumerate(contents, 1)
    ]
    made = report(OPTIONS, make_outcome(*cells))
    return {name: table["rows"] for name, table in report_json(made)["tables"].items()}, made


def test_peaks_percent_requirements_and_cards(make_cell, make_outcome):
    content = with_memory(1, 6.0, reserved_gb=7.0, used_gb=7.5)
    tables, made = told(make_cell, make_outcome, content)
    [row] = tables["models"]
    assert row["peak_memory_gb"] == 6.0 and row["reserved_gb"] == 7.0 and row["driver_used_gb"] == 7.5
    assert row["card_percent"] == pytest.approx(100 * 6e9 / (24 * 1024 * MIB))
    [needed] = tables["requirements"]
    assert needed["minimum_gb"] == pytest.approx(6.5) and needed["recommended_gb"] == pytest.approx(9.375)
    assert needed["minimum_card"] == "GeForce RTX 4060 8 GB"  # 8.586 GB; the one of 6 GB has 6.442
    assert needed["recommended_card"] == "GeForce RTX 3080 10 GB"  # 10.74 GB
    assert needed["doubts"] == {}
    log = json.loads(made.texts["memory_log.json"])[MODEL]
    assert [phase["phase"] for phase in log] == [
        "load",
        "text encoding",
        "denoising",
        "VAE decoding",
        "other",
        "run",
    ]
    assert log[-1]["gpu_gb"] == 6.0
    assert f"{MODEL}, 1 image at a time" in made.texts["memory_log.txt"]


def test_a_shared_card_makes_the_requirement_doubtful(make_cell, make_outcome):
    content = with_memory(1, 6.0, reserved_gb=7.0, used_gb=20.0, warnings=[("shared_gpu", "a neighbour")])
    tables, _ = told(make_cell, make_outcome, content)
    [needed] = tables["requirements"]
    assert (
        needed["minimum_gb"] == pytest.approx(6.0) and "other processes" in needed["doubts"]["minimum_gb"][0]
    )


def test_an_unknown_card_has_no_percentage(make_cell, make_outcome):
    content = with_memory(1, 6.0, reserved_gb=7.0, used_gb=7.5)
    content["environment"]["devices"] = [None]  # as on a MIG slice
    tables, _ = told(make_cell, make_outcome, content)
    [row] = tables["models"]
    assert row["card_percent"] is None and "slice" in row["reasons"]["card_percent"]
    assert card_of(content) == "the run's GPU is not known, or is a slice of one"


def test_on_a_cpu_the_cards_figures_are_null_and_the_hosts_are_there(make_cell, make_outcome):
    content = gpu_result(0.5, on_cpu=True, joules=None, peak_bytes=None)
    tables, _ = told(make_cell, make_outcome, content)
    [row] = tables["models"]
    assert row["peak_memory_gb"] is None and row["reasons"]["peak_memory_gb"]
    assert row["host_memory_gb"] == content["memory"]["host_rss_peak_bytes"] / 1e9
    [needed], [batch] = tables["requirements"], tables["batches"]
    assert needed["minimum_gb"] is None and needed["minimum_card"] is None
    assert batch["fits"] is None and "there is no card to fill" in batch["reasons"]["fits"]


def out_of_memory(cell, kind):
    """Leave what a run leaves that ran out of memory."""
    plan = make_plan()
    figures = {"kind": kind, "tried": "2 GiB", "total_bytes": None, "limit_bytes": None}
    error = OutOfMemory("out of memory on NVIDIA H200 of rank 0 while measuring", figures, plan)
    status = StatusFile(cell.runs[0].folder / "status.json", 1)
    status.write(state="failed", **describe(error, 0))


def test_out_of_memory_on_the_card_is_a_result_and_on_the_host_it_is_not(make_cell):
    full, host = make_cell("out of memory", batch_size=4), make_cell("out of memory", batch_size=4)
    nothing = make_cell("no such model", batch_size=4)
    out_of_memory(full, "gpu")
    out_of_memory(host, "host")
    assert [is_out_of_gpu_memory(cell.runs[0]) for cell in (full, host, nothing)] == [True, False, False]


def test_the_rounds_go_on_for_each_model_until_its_card_is_full(make_cell):
    models = ("a/small", "b/large", "c/broken")
    steps = sweeps(VramOptions(models=models, most_batch=8))
    capacity = {"a/small": 6, "b/large": 1}

    def cells(sweep):
        made = []
        for entry in sweep.content["list"]:
            model, batch = entry["model_id"], entry["batch_size"]
            assert entry["vae_slicing"] is (True if batch > 1 else None)  # of one image it is refused
            if batch <= capacity.get(model, 0):
                made.append(make_cell(with_memory(batch, batch), **entry))
            else:
                made.append(make_cell("out of memory" if model in capacity else "no such model", **entry))
                if model in capacity:
                    out_of_memory(made[-1], "gpu")
        return made

    seen = []
    sweep = next(steps)
    with pytest.raises(StopIteration):
        while True:
            seen.append([(entry["model_id"][0], entry["batch_size"]) for entry in sweep.content["list"]])
            sweep = steps.send(cells(sweep))
    assert seen == [
        [("a", 1), ("b", 1), ("c", 1)],
        [("a", 2), ("b", 2)],
        [("a", 4)],
        [("a", 8)],
        [("a", 6)],
        [("a", 7)],
    ]


def test_the_summary_says_what_fits(make_cell, make_outcome):
    full = make_cell("out of memory", sweep="round-2", model_id=MODEL, batch_size=2)
    out_of_memory(full, "gpu")
    one = make_cell(with_memory(1, 6.0, reserved_gb=7.0, used_gb=7.5), model_id=MODEL, batch_size=1)
    made = report(OPTIONS, make_outcome(one, full))
    assert f"{MODEL}: the card has room for 1 image, not for 2" in made.summary
    rows = report_json(made)["tables"]["batches"]["rows"]
    assert [row["fits"] for row in rows] == [True, False]
    assert rows[1]["reasons"]["time_per_image_s"] == "out of memory"
