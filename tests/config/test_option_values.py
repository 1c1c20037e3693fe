"""Values that no option takes: refused when the command line is read, in one line with the option's name."""

import math

import pytest

from mlenergy.diffusion.config.args import BenchmarkArgs, PlanArgs
from mlenergy.diffusion.config.command_line import CommandLine
from mlenergy.diffusion.config.option import Option
from mlenergy.diffusion.config.parser import parse
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.sweep.command import SweepArgs
from mlenergy.diffusion.tune.options import TuneCommand, read_command

VERBS = {"run": BenchmarkArgs, "plan": PlanArgs, "sweep": SweepArgs, "tune": TuneCommand}
NEEDED = {"sweep": ["sweep.yaml"]}


def words_of(verb: str) -> list[str]:
    return NEEDED.get(verb, ["--workload.model_id", "tiny/flux"])


def options_of(verb: str, *types: object) -> list[Option]:
    return [one for one in CommandLine.of(VERBS[verb]).options.values() if one.value_type in types]


def refusal(verb: str, option: Option, value: str) -> str:
    with pytest.raises(UserError) as error:
        parse(VERBS[verb], [*words_of(verb), f"--{option.name}={value}"], f"mlenergy {verb}")
    assert str(error.value).startswith(f"--{option.name} "), str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    str(error.value).encode()
    return str(error.value)


@pytest.mark.parametrize("verb", VERBS)
def test_no_number_may_be_nan_or_infinite(verb):
    for option in options_of(verb, float):
        for value in ("nan", "NaN", "inf", "-inf", "Infinity", "1e400", "-1e400"):
            assert "finite number" in refusal(verb, option, value)
    for option in options_of(verb, int):
        for value in ("nan", "inf", "1e3", "1.0", "9" * 5000):
            assert "whole number" in refusal(verb, option, value)


@pytest.mark.parametrize("verb", VERBS)
def test_every_number_has_a_range_and_is_refused_outside_of_it(verb):
    options = options_of(verb, int, float)
    assert options
    for option in options:
        assert "too small" in refusal(verb, option, "-1")
        for value in ("1" + "0" * 30, str(2**63)):
            assert "too large" in refusal(verb, option, value)
        low = option.numbers.least if option.numbers.least is not None else option.numbers.above
        high = option.numbers.most if option.numbers.most is not None else option.numbers.below
        assert low >= 0 and math.isfinite(high)


@pytest.mark.parametrize("verb", ["run", "plan", "tune"])
def test_a_batch_or_a_size_of_nothing_and_absurd_ones_are_refused(verb):
    options = CommandLine.of(VERBS[verb]).options
    for name in ("batch_size", "height", "width", "inference_steps"):
        assert "use 1 or more" in refusal(verb, options[f"workload.{name}"], "0")
        assert "too large" in refusal(verb, options[f"workload.{name}"], str(10**9))
    assert "use 0 or more" in refusal(verb, options["workload.seed"], "-1")


@pytest.mark.parametrize("verb", VERBS)
def test_no_text_or_path_is_empty_or_cannot_be_written(verb):
    empty = {"workload.prompt_prefix", "workload.negative_prompt"}
    texts = [
        one
        for one in CommandLine.of(VERBS[verb]).options.values()
        if one.takes != "no value" and one.name.rpartition(".")[2] != "degrees"
    ]
    for option in texts:
        for value in ("a\0b", "half \udcff"):
            refusal(verb, option, value)
        if option.name not in empty:
            refusal(verb, option, "")
            refusal(verb, option, "  ")


def test_an_empty_prefix_and_an_empty_negative_prompt_mean_something():
    words = [*words_of("run"), "--workload.prompt_prefix=", "--workload.negative_prompt="]
    work = parse(BenchmarkArgs, words, "mlenergy run").workload
    assert (work.prompt_prefix, work.negative_prompt) == ("", "")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--power_limits_w", "none", "nan"], "--power_limits_w takes a finite number, not 'nan'"),
        (["--power_limits_w", "-400"], "--power_limits_w -400 is too small; use a number above 0"),
        (["--power_limits_w", "400", "1e400"], "--power_limits_w takes a finite number"),
        (["--batch_sizes", "1", "-2"], "--batch_sizes -2 is too small"),
        (["--batch_sizes"], "--batch_sizes needs a value"),
        (["--batch_sizes", "--debug"], "--batch_sizes needs a value"),
        (["--degrees", f"ulysses={10**9}"], "cannot read"),
        (["--degrees", "ulysses=²"], "cannot read"),
        (["--degrees", ""], "--degrees"),
    ],
)
def test_lists_of_tune_are_checked_value_by_value(words, complaint):
    with pytest.raises(UserError) as error:
        read_command([*words_of("tune"), *words])
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_none_is_a_value_like_any_other():
    for words in (["--ring_degree", "None"], ["--compile_mode", "None"], ["--target_ci", "None"]):
        with pytest.raises(UserError, match="not 'None'"):
            parse(BenchmarkArgs, [*words_of("run"), *words], "mlenergy run")
    assert parse(BenchmarkArgs, [*words_of("run"), "--workload.lora", "None"], "x").workload.lora == "None"
