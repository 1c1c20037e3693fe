"""tyro and the quick reading of a sweep's command lines understand every command line alike."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlenergy.diffusion.config.args import BenchmarkArgs, PlanArgs
from mlenergy.diffusion.config.command_line import CommandLine
from mlenergy.diffusion.config.option import Option
from mlenergy.diffusion.config.parser import parse, read
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.sweep.command import SweepArgs

OPTIONS = tuple(CommandLine.of(BenchmarkArgs).options.values())
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=8).filter(
    lambda text: not text.startswith(("-", "workload:"))
)


def value_of(option: Option) -> st.SearchStrategy[str]:
    if typing.get_origin(option.value_type) is typing.Literal:
        return st.sampled_from([str(choice) for choice in typing.get_args(option.value_type)])
    if option.value_type is int:
        return st.integers(1, 64).map(str)
    if option.value_type is float:
        return st.sampled_from(["0.5", "1", "2.5e-1"])
    return TEXT


def words_of(option: Option) -> st.SearchStrategy[list[str]]:
    """An option in one of its spellings, with values."""
    name = st.sampled_from([f"--{option.name}", f"--{option.name.replace('_', '-')}"])
    if option.takes == "no value":
        return st.sampled_from([[f"--{option.name}"], [f"--{option.negation}"]])
    if option.takes == "values":
        return st.tuples(name, st.lists(value_of(option), min_size=1, max_size=3)).map(
            lambda p: [p[0], *p[1]]
        )
    joined = st.tuples(name, value_of(option)).map(lambda pair: [f"{pair[0]}={pair[1]}"])
    return joined | st.tuples(name, value_of(option)).map(list)


@given(
    options=st.lists(st.sampled_from(OPTIONS).flatmap(words_of), max_size=5),
    workload=st.sampled_from([[], ["workload:t2i"], ["workload:text-to-image"]]),
    first=st.booleans(),
)
def test_both_read_alike(options: list[list[str]], workload: list[str], first: bool) -> None:
    given_words = [word for words in options for word in words]
    model = ["--workload.model_id", "tiny/flux"]
    argv = [*workload, *given_words, *model] if first else [*given_words, *model, *workload]
    assert outcome(parse, argv) == outcome(read, argv)


def outcome(reader: Any, argv: list[str]) -> Any:
    try:
        return reader(BenchmarkArgs, argv, "mlenergy run")
    except UserError as error:  # a value out of its range
        return str(error)


@pytest.mark.parametrize(
    ("kind", "argv"),
    [
        (BenchmarkArgs, ["--seed", "1", "--workload.model_id=a/b"]),
        (BenchmarkArgs, ["--no_save_images", "--save_images", "workload:t2i", "--workload.model_id", "a/b"]),
        (BenchmarkArgs, ["--workload.model_id", "a/b", "--workload.negative_prompt", "None"]),
        (BenchmarkArgs, ["--workload.model_id", "a/b", "--workload.prompt_prefix=-x"]),
        (PlanArgs, ["--json", "--workload.model_id", "a/b", "--processes", "4"]),
        (SweepArgs, ["--filter", "a == 1", "sweep.yaml", "--filter", "b == 2", "--no-resume"]),
        (SweepArgs, ["--print", "--", "-odd.yaml"]),
    ],
)
def test_these_too(kind: Any, argv: list[str]) -> None:
    def of(reader: Any) -> Any:
        try:
            return reader(kind, argv, "mlenergy")
        except UserError as error:
            return str(error)

    assert of(parse) == of(read)
