"""Ratios with their intervals by hand, all that differs, the table of two models, and the limits for CI."""

import json
import math
import random
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from result_folders import ENVIRONMENT, NODE, result, save

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.measure.starts import StartSummary
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.report.compare_command import main
from mlenergy.diffusion.results.ratio import Ratio, ratio_of
from mlenergy.diffusion.results.repeats import Figure

MLENERGY = Path(sys.executable).with_name("mlenergy")
NEWER = {**ENVIRONMENT, "versions": {**ENVIRONMENT["versions"], "torch": "2.14.0"}}
SD3 = "stabilityai/stable-diffusion-3.5-large"


@pytest.fixture
def compare(capsys, monkeypatch, tmp_path):
    """Run the verb; give its exit code, its text, and its lines on the error stream."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*argv):
        code = main([*map(str, argv)])
        said = capsys.readouterr()
        return code, said.out, said.err.splitlines()

    return run


def of_json(compare, *argv):
    code, text, _ = compare(*argv, "--json")
    return code, json.loads(text)


def figure(*values):
    return Figure([StartSummary(len(values), statistics.fmean(values), statistics.stdev(values))])


def test_the_ratio_and_its_interval_by_hand():
    # u = 0.05 / 2.55 and v = 0.05 / 2.05, one degree of freedom each.
    found = ratio_of(figure(2.5, 2.6), figure(2.0, 2.1))
    u2, v2 = (0.05 / 2.55) ** 2, (0.05 / 2.05) ** 2
    freedom = (u2 + v2) ** 2 / (u2**2 + v2**2)
    assert freedom == pytest.approx(1.91175, rel=1e-5)
    from scipy.stats import t

    factor = math.exp(t.ppf(0.975, freedom) * math.sqrt(u2 + v2))
    assert found.value == pytest.approx(2.55 / 2.05)
    assert (found.low, found.high) == pytest.approx((2.55 / 2.05 / factor, 2.55 / 2.05 * factor))
    assert found.shows_difference is True
    back = ratio_of(figure(2.0, 2.1), figure(2.5, 2.6))
    turned = found.inverse()
    assert (back.value, back.low, back.high) == pytest.approx((turned.value, turned.low, turned.high))
    assert found.times(2).high == pytest.approx(2 * (found.high or 0))


def test_the_interval_holds_the_true_ratio_95_times_in_100():
    draw = random.Random(5)

    def one(mean, count):
        return figure(*(draw.gauss(mean, 0.05 * mean) for _ in range(count)))

    found = [ratio_of(one(1.3, 4), one(1.0, 8)) for _ in range(4000)]
    held = sum((ratio.low or 0) <= 1.3 <= (ratio.high or 0) for ratio in found) / len(found)
    assert 0.94 < held < 0.96


def test_starts_that_scatter_widen_the_ratio():
    starts = [StartSummary(4, mean, 0.001) for mean in (2.0, 2.2, 2.1)]
    found = ratio_of(Figure(starts), figure(1.0, 1.0))
    # Between starts: sd 0.1, over sqrt(3), as a share of 2.1; the base has no scatter, t(0.975, 2) = 4.30265
    half = 4.30265 * 0.1 / math.sqrt(3) / 2.1
    assert (found.low, found.high) == pytest.approx((2.1 / math.exp(half), 2.1 * math.exp(half)), rel=1e-5)


def test_ratios_without_scatter_or_without_an_interval():
    exact = ratio_of(figure(2.0, 2.0), figure(1.0, 1.0))
    assert (exact.value, exact.low, exact.high, exact.shows_difference) == (2.0, 2.0, 2.0, True)
    once = ratio_of(Figure([StartSummary(1, 2.0, None)]), figure(1.0, 1.0))
    assert (once.value, once.low, once.shows_difference) == (2.0, None, None)
    assert Ratio(1.2, 0.9, 1.5).shows_difference is False
    wide = ratio_of(figure(1e-9, 1.0), figure(1e-9, 1.0))
    assert 0 < (wide.low or 0) < 1 < (wide.high or 0) < math.inf


def test_two_versions_of_one_set_up(compare, tmp_path):
    save(tmp_path / "old", seconds=(10.0, 10.2, 10.4), joules=(5000.0, 5200.0, 5100.0))
    save(tmp_path / "new", seconds=(8.0, 8.2, 8.4), joules=(5010.0, 5190.0, 5110.0), environment=NEWER)
    code, text, errors = compare("old", "new")
    assert (code, errors) == (0, [])
    assert re.search(r"B ÷ A +seconds an image +0\.8039 +0\.7\d+ to 0\.8\d+ +19\.6 % faster *\n", text)
    assert re.search(r"joules an image +1\.001 +0\.9\d+ to 1\.0\d+ +no difference shown *\n", text)
    assert "  versions       torch: A 2.13.0, B 2.14.0\n" in text
    assert "  configuration  no difference\n" in text
    assert "  hardware       no difference\n" in text
    assert "one start of A, B: its interval does not know how much starts differ" in text
    _, alone, _ = compare(".")
    assert "A = new/results.json, B = old/results.json" in alone, "one folder with both is taken apart"
    assert re.search(r"B ÷ A +seconds an image +1\.244 ", alone)


def test_json_has_every_number_in_full(compare, tmp_path):
    one, two = result(seconds=(8.0, 8.4)), result(seconds=(10.0, 10.4), batch_size=2)
    save(tmp_path / "a", one)
    save(tmp_path / "b", two)
    code, found = of_json(compare, "a", "b")
    seconds, joules = found["ratios"]
    assert code == 0
    assert seconds["ratio"] == pytest.approx(two["avg_time_per_image"] / one["avg_time_per_image"])
    assert (seconds["side"], seconds["base"], seconds["difference_shown"]) == ("B", "A", True)
    assert seconds["ci95_low"] < seconds["ratio"] < seconds["ci95_high"]
    assert (joules["ratio"], joules["reason"][:17]) == (None, "A: no GPU takes p")
    assert found["differences"]["configuration"] == {"batch_size": ["4", "2"]}
    assert found["sides"][1]["set_ups"][0]["images_per_s"] == pytest.approx(two["throughput_images_per_sec"])
    assert found["sides"][1]["set_ups"][0]["results"] == ["b/results.json"]
    assert (found["models"], found["exceeded"], found["not_shown"]) == (None, [], [])


def test_other_hardware_and_doubtful_numbers_never_compare_in_silence(compare, tmp_path):
    a100 = {**NODE, "gpus": [{**gpu, "name": "NVIDIA A100"} for gpu in NODE["gpus"]]}
    save(tmp_path / "a", warnings=[("above_peak_flops", "more than the card can")])
    save(tmp_path / "b", device_name="NVIDIA A100", environment={**ENVIRONMENT, "nodes": [a100]})
    _, text, _ = compare("a", "b")
    assert "caution        the hardware differs: the ratios are those of the machines too" in text
    assert "hardware       device_name: A NVIDIA H200, B NVIDIA A100" in text
    assert "hardware       gpus: A NVIDIA H200, B NVIDIA A100" in text
    assert "caution        A has doubtful numbers: above_peak_flops" in text
    assert "  [1]            above_peak_flops: more than the card can" in text
    assert re.search(r"seconds an image .* no difference shown \[1\] *\n", text)
    _, found = of_json(compare, "a", "b")
    assert len(found["cautions"]) == 3
    assert found["ratios"][0]["doubts"] == ["above_peak_flops"]
    (tmp_path / "c").mkdir()
    save(tmp_path / "c")
    assert "caution        the hardware" not in compare("a", "c")[1]
    save(tmp_path / "d", environment={**ENVIRONMENT, "nodes": [{**NODE, "cpu": "Another CPU"}]})
    assert "caution        the hardware differs" in compare("c", "d")[1]


def test_sides_of_several_set_ups_are_paired_by_their_settings(compare, tmp_path):
    for batch, factor in ((1, 1.0), (2, 0.5), (4, 2.0)):
        save(tmp_path / f"old/{batch}", seconds=(8.0, 8.1), batch_size=batch)
        seconds = (8.0 * factor, 8.1 * factor)
        save(tmp_path / f"new/{batch}", seconds=seconds, batch_size=batch, environment=NEWER)
    save(tmp_path / "old/16", batch_size=16)
    code, text, errors = compare("old", "new", "--fail_if_slower", "5%")
    assert re.search(r"B ÷ A: batch 1 +seconds an image +1 .*no difference shown", text)
    assert re.search(r"B ÷ A: batch 2 +seconds an image +0\.5 .*50 % faster", text)
    assert re.search(r"B ÷ A: batch 4 +seconds an image +2 .*100 % slower", text)
    assert "3 pairs: 1 slower, 1 faster, 1 without a difference shown" in text
    assert "alone          1 set-ups of A have no partner" in text
    assert code == 3
    assert len(errors) == 1
    assert errors[0].startswith("mlenergy: B (new/4) is 100 % slower than A, 95 % interval ")


def test_a_setting_that_an_older_version_did_not_know_does_not_keep_set_ups_apart(compare, tmp_path):
    for batch in (1, 2):
        save(tmp_path / f"new/{batch}", batch_size=batch)
        content = result(batch_size=batch)
        del content["configuration"]["prompt_prefix"]
        save(tmp_path / f"old/{batch}", content)
    _, found = of_json(compare, "old", "new")
    assert len(found["ratios"]) == 4
    assert found["differences"]["configuration"] == {"prompt_prefix": ["none", ""]}


def test_several_sides_are_each_compared_with_the_first(compare, tmp_path):
    for name, factor in (("a", 1.0), ("b", 2.0), ("c", 4.0)):
        save(tmp_path / name, seconds=(8.0 * factor, 8.0 * factor), seed=int(factor))
    _, found = of_json(compare, "a", "b", "c")
    assert [(r["side"], r["base"], r["ratio"]) for r in found["ratios"][::2]] == [
        ("B", "A", 2),
        ("C", "A", 4),
    ]


def two_models(tmp_path):
    """FLUX: 2.0, 2.1, 2.2 s an image; SD3.5: 1.0, 1.1 and 1.0, 1.3 in two starts; 500 and 400 J."""
    flux = result(seconds=(8.0, 8.4, 8.8), joules=(2000.0, 2000.0, 2000.0))
    save(tmp_path / "flux", {**flux, "quality": {"fid": 21.5}})
    for number, seconds in enumerate([(4.0, 4.4), (4.0, 5.2)]):
        of_sd3 = result(seconds=seconds, joules=(1600.0, 1600.0), spec=BY_ID[SD3])
        save(tmp_path / f"sd3/{number}", {**of_sd3, "quality": {"fid": 25.0}})


def test_the_table_of_two_models_to_the_word(compare, tmp_path):
    two_models(tmp_path)
    _, found = of_json(compare, "flux", "sd3")
    models = found["models"]
    assert models["models"] == [
        "black-forest-labs/FLUX.1-dev (text-conditional)",
        f"{SD3} (text-conditional)",
    ]
    flux, sd3 = BY_ID["black-forest-labs/FLUX.1-dev"].parameters, BY_ID[SD3].parameters
    assert flux and sd3
    # All four: mean 1.1, squares 0.01 + 0 + 0.01 + 0.04, over 3
    assert models["rows"] == [
        ["Model Size (M params)", f"{flux / 1e6:,.0f}", f"{sd3 / 1e6:,.0f}"],
        ["Avg Inference Time (s)", "2.1", "1.1"],
        ["Std Inference Time (s)", "0.1", "0.1414"],
        ["Min Inference Time (s)", "2", "1"],
        ["Max Inference Time (s)", "2.2", "1.3"],
        ["Throughput (images/sec)", "0.4762", "0.9091"],
        ["FID Score (lower = better)", "21.5", "25"],
    ]
    # 2.1 / 1.1; that times parameters of FLUX over those of SD3.5; 500 / 400
    winners = dict(models["winners"])
    assert winners["Quality Winner"] == "black-forest-labs/FLUX.1-dev (FID lower by 3.5)"
    assert winners["Energy Winner"] == f"{SD3} (1.25× less energy)"
    assert list(winners) == ["Speed Winner", "Quality Winner", "Efficiency Winner", "Energy Winner"]
    assert winners["Speed Winner"] == f"{SD3} (1.909× faster)"


def test_no_winner_where_no_difference_is_shown(compare, tmp_path):
    save(tmp_path / "flux", seconds=(7.0, 8.0, 9.0), joules=(1.0, 2.0, 3.0))
    save(tmp_path / "sd3", seconds=(7.5, 8.5, 9.1), joules=(1.0, 2.0, 3.3), spec=BY_ID[SD3])
    _, found = of_json(compare, "flux", "sd3")
    winners = dict(found["models"]["winners"])
    assert winners["Speed Winner"] == winners["Energy Winner"] == "none: no difference shown"


def test_the_winners_of_two_single_starts(compare, tmp_path):
    two_models(tmp_path)
    save(tmp_path / "one", seconds=(4.0, 4.1, 4.2), spec=BY_ID[SD3])
    _, found = of_json(compare, "flux", "one")
    winners = dict(found["models"]["winners"])
    flux, sd3 = BY_ID["black-forest-labs/FLUX.1-dev"].parameters or 0, BY_ID[SD3].parameters or 1
    assert winners["Speed Winner"] == f"{SD3} (2.049× faster)"  # 2.1 / 1.025
    efficiency = f"{2.1 / 1.025 * flux / sd3:.4g}"
    assert winners["Efficiency Winner"] == f"{SD3} (throughput per parameter, {efficiency}× more efficient)"
    assert (
        winners["Quality Winner"]
        == "not known: FID was not computed; mlenergy quality computes it from the saved images"
    )
    assert winners["Energy Winner"] == "not known: B: no GPU takes part: the run is on the CPU"
    _, text, _ = compare("one", "flux")
    assert f"  Speed Winner       {SD3} (2.049× faster)\n" in text, "whichever comes first"


def test_class_conditional_models_are_marked(compare, tmp_path):
    content = result()
    content["configuration"]["model"]["conditioning"] = "class"
    save(tmp_path / "var", {**content, "model_id": "FoundationVision/var"})
    save(tmp_path / "flux")
    old = {"model_id": "org/old", "completed": 4, "generation_time": 2.0}
    save(tmp_path / "old", old)
    _, text, _ = compare("var", "flux", "--markdown")
    assert (
        "| FoundationVision/var (class-conditional) | black-forest-labs/FLUX.1-dev (text-conditional) |"
        in text
    )
    assert (
        "A class-conditional model draws one of its classes, a text-conditional one reads a prompt." in text
    )
    assert "org/old (conditioning not known)" in compare("var", "old", "--markdown")[1]


def test_a_winner_by_a_doubtful_number_is_marked(compare, tmp_path):
    save(tmp_path / "flux", warnings=[("throttle", "hot")])
    save(tmp_path / "sd3", seconds=(4.0, 4.1), spec=BY_ID[SD3])
    _, text, _ = compare("flux", "sd3")
    assert re.search(r"Speed Winner .* faster\) \[1\]\n", text)
    assert re.search(r"Efficiency Winner .* efficient\) \[1\]\n", text)


def test_the_text_at_80_and_120_columns(compare, tmp_path, golden, monkeypatch):
    two_models(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    golden("compare_80.txt", compare("flux", "sd3")[1])
    monkeypatch.setenv("COLUMNS", "120")
    golden("compare_120.txt", compare("flux", "sd3")[1])
    golden("compare.md", compare("flux", "sd3", "--markdown")[1])


@pytest.mark.parametrize(
    ("seconds", "limit", "code"),
    [
        ((8.6, 8.61, 8.62), "5%", 3),  # 7.6 % slower
        ((8.6, 8.61, 8.62), "10 %", 0),
        ((8.6, 8.61, 8.62), "7.7%", 0),
        ((8.6, 8.61, 8.62), "7.5%", 3),
        ((7.0, 9.0, 10.0), "5%", 0),  # 8.3 % slower, and no difference shown
        ((7.0, 7.0, 7.0), "0%", 0),  # faster
        ((9.0,), "5%", 3),  # no interval: the mean decides
        ((8.1,), "5%", 0),
    ],
)
def test_a_limit_on_seconds(compare, tmp_path, seconds, limit, code):
    save(tmp_path / "a", seconds=(7.99, 8.0, 8.01))
    save(tmp_path / "b", seconds=seconds)
    found, text, errors = compare("a", "b", "--fail-if-slower", limit)
    assert found == code
    assert bool(errors) == (code == 3)
    assert "seconds an image" in text, "what was compared is printed all the same"


@pytest.mark.parametrize(
    ("joules", "code"), [((4400.0, 4410.0), 3), ((4100.0, 4110.0), 0), ((3000.0, 9000.0), 0)]
)
def test_a_limit_on_joules(compare, tmp_path, joules, code):
    save(tmp_path / "a", joules=(4000.0, 4001.0))
    save(tmp_path / "b", joules=joules)
    assert compare("a", "b", "--fail-if-more-energy=5%")[0] == code
    assert compare("a", "b", "--fail_if_slower", "5%")[0] == 0, "each limit is about its own figure"


def test_a_limit_on_joules_that_are_not_known_is_an_error(compare, tmp_path):
    save(tmp_path / "a", joules=(4000.0, 4001.0))
    save(tmp_path / "b")
    with pytest.raises(UserError, match="fail_if_more_energy: joules are not known of B: no GPU takes part"):
        compare("a", "b", "--fail_if_more_energy", "5%")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["a"], "a has one set-up, which is compared with nothing; name another folder too"),
        (["a", "absent"], "there is no 'absent'"),
        (["a", "torn"], "there is no complete result in torn: torn/results.json is broken"),
        (["a", "b", "--fail_if_slower", "5"], "--fail_if_slower: cannot read '5'; write a percentage"),
        (["a", "b", "--fail_if_slower", "-5%"], "--fail_if_slower"),
        (["a", "b", "--fail_if_more_energy", "x%"], "--fail_if_more_energy: cannot read 'x%'"),
        (["a", "b", "--json", "--markdown"], "exclude each other"),
        (["a", "several"], "a and several have no set-up in common, and one of them has several"),
        (["mixed", "several"], "mixed has a set-up on several versions or machines (mixed/"),
        ([], "required: PATH"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(tmp_path, monkeypatch, argv, sentence):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a")
    save(tmp_path / "b")
    save(tmp_path / "torn", "{")
    for batch in (1, 2):
        save(tmp_path / f"several/{batch}", batch_size=batch)
    save(tmp_path / "mixed/1", batch_size=1)
    save(tmp_path / "mixed/2", batch_size=1, environment=NEWER)
    with pytest.raises(UserError) as error:
        main(argv)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_result_is_named_and_hostile_text_stays_text(compare, tmp_path):
    save(tmp_path / "a", {**result(), "model_id": "a|b\x1b[31m\n"})
    save(tmp_path / "b/1")
    save(tmp_path / "b/torn", "{")
    for form in ((), ("--markdown",)):
        text = compare("a", "b", *form)[1]
        assert "\x1b" not in text
        assert "b/torn/results.json: not whole JSON" in text
    assert len(of_json(compare, "a", "b")[1]["not_shown"]) == 1


def test_the_real_command_and_its_exit_codes(tmp_path):
    save(tmp_path / "a", seconds=(8.0, 8.01))
    save(tmp_path / "b", seconds=(16.0, 16.02))

    def run(*argv):
        return subprocess.run([MLENERGY, "compare", *argv], capture_output=True, text=True, cwd=tmp_path)

    slower = run("a", "b", "--fail-if-slower", "5%")
    assert slower.returncode == 3
    assert "100 % slower" in slower.stdout
    assert slower.stderr.startswith("mlenergy: B (b) is ")
    assert slower.stderr.endswith(": over the limit of 5 %\n")
    assert run("b", "a", "--fail_if_slower", "5%").returncode == 0
    mistake = run("a", "b", "--fail_if_slower", "fast")
    assert (mistake.returncode, mistake.stdout) == (2, "")
    assert mistake.stderr.count("\n") == 1
