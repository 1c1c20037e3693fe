"""GPUs for a number of images a day: counts, energy and cost by hand, latencies, and what is left out."""

import json
import math
from dataclasses import replace

import pytest

from mlenergy.diffusion.cli import main
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.forecast.fleet import Demand, advise
from mlenergy.diffusion.forecast.predict import forecast_of

FLUX = "black-forest-labs/FLUX.1-dev"


@pytest.fixture
def flux(plan_of):
    return plan_of(FLUX, inference_steps=50)


def test_counts_energy_and_cost_by_hand(flux):
    demand = Demand(100_000, None, {"H100": 2.5, "B200": 5.0}, 0.2)
    advice = advise(flux, ["H100", "B200"], demand)
    assert advice.without == {}
    costs = [offer.cost_per_day for offer in advice.offers]
    assert costs == sorted(costs)
    h100 = next(offer for offer in advice.offers if offer.gpu == "H100")
    assert h100.gpus_per_replica == 1, "sharing an image costs GPU hours"
    one = forecast_of(flux, "H100")
    assert h100.gpus == math.ceil(100_000 * one.duration_s.value / 86_400) == 14
    kwh = 100_000 * one.energy_per_output_j.value / 3.6e6
    assert h100.energy_kwh_per_day == pytest.approx(kwh)
    assert h100.cost_per_day == pytest.approx(14 * 24 * 2.5 + 0.2 * kwh)
    assert h100.cost_per_1000_outputs == pytest.approx(h100.cost_per_day / 100)


def test_a_latency_makes_gpus_share_an_image(flux):
    demand = Demand(100_000, 6.0, {"H100": 2.5}, None)
    (offer,) = advise(flux, ["h100"], demand).offers
    shared = forecast_of(replace(flux, parallel=Parallelism(ulysses=offer.degrees["ulysses"])), "H100")
    assert offer.degrees["ulysses"] == offer.gpus_per_replica == 4
    assert offer.latency_s.value == shared.duration_s.value <= 6.0
    assert offer.gpus % 4 == 0 and offer.gpus == 4 * math.ceil(100_000 * shared.duration_s.value / 86_400)


def test_gpus_that_cannot_do_it_say_why(flux):
    advice = advise(flux, ["RTX4090", "L40S", "H100"], Demand(1000, 11.0, {}, None))
    assert advice.without["RTX4090"] == "it does not fit into 24 GiB"
    assert advice.without["L40S"] == "a batch takes more than 11 s"
    assert [offer.gpu for offer in advice.offers] == ["H100"]
    assert advice.offers[0].cost_per_day is None, "no price was given"
    dear = advise(flux, ["H100", "B200"], Demand(1000, None, {"H100": 2}, 0.1))
    assert [offer.cost_per_day is None for offer in dear.offers] == [False, True], "B200's hour has no price"


def test_the_command_prints_a_table_and_json(run):
    words = (
        "--gpus",
        "H100,B200,L40S",
        "--images_per_day",
        "1e6",
        "--gpu_hour",
        "H100=2",
        "B200=4",
        "L40S=1",
    )
    code, shown = run(*words, "--price_kwh", "0.15")
    assert code == 0 and "1,000,000 images of 1024x1024 a day, cheapest first" in shown.out
    assert "L40S: extrapolated to L40S by its data sheet" in shown.out
    code, shown = run(*words, "--json")
    content = json.loads(shown.out)
    assert [offer["gpu"] for offer in content["offers"]] and content["images_per_day"] == 1e6
    assert all("cost_per_1000_images" in offer for offer in content["offers"])
    assert all(offer["latency_s"]["low"] < offer["latency_s"]["high"] for offer in content["offers"])


def test_of_a_model_that_makes_videos_they_are_counted(capsys, monkeypatch):
    video = ("workload:text-to-video", "--workload.model_id", "zai-org/CogVideoX-2b")
    argv = ["mlenergy", "plan", "--gpus", "H100", "--images_per_day", "5000", "--gpu_hour", "H100=2"]

    def shown(*words):
        monkeypatch.setattr("sys.argv", [*argv, *words, *video])
        assert main() == 0
        return capsys.readouterr().out

    text = shown()
    assert "5,000 videos of 720x480, 49 frames, a day" in text and "cost/1000 videos" in text
    assert "image" not in text
    content = json.loads(shown("--json"))
    assert content["videos_per_day"] == 5000 and "images_per_day" not in content
    (offer,) = content["offers"]
    assert offer["cost_per_1000_videos"] == pytest.approx(offer["cost_per_day"] / 5)
    assert "cost_per_1000_outputs" not in offer


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--gpus", "H100"), "give --images_per_day"),
        (("--images_per_day", "5"), "name them: --gpus H100,B200"),
        (("--gpus", "H1000", "--images_per_day", "5"), "did you mean H100?"),
        (
            ("--gpus", "H100", "--images_per_day", "5", "--gpu_hour", "H100"),
            "write it as --gpu_hour H100=2.5",
        ),
        (("--gpus", "H100", "--images_per_day", "5", "--gpu_hour", "H100=-1"), "is no price"),
        (("--gpus", "H100", "--images_per_day", "0"), "too small"),
    ],
)
def test_mistakes_are_one_line(run, words, says):
    code, shown = run(*words)
    assert code == 2 and says in shown.err and shown.err.count("\n") == 1
