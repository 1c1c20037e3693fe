"""Installation and refusals on each operating system."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mlenergy.diffusion.config import resolve
from mlenergy.diffusion.environment import platforms
from mlenergy.diffusion.errors import UserError

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
TINY = ["--device", "cpu", "workload:t2i", "--workload.model_id", "tiny/flux"]


def installed_on(platform):
    wanted = [Requirement(line) for line in PROJECT["dependencies"]]
    names = (
        need.name for need in wanted if not need.marker or need.marker.evaluate({"sys_platform": platform})
    )
    return set(names)


def test_what_has_wheels_for_linux_alone_is_wanted_there_alone():
    assert installed_on("linux") - installed_on("darwin") == {"triton"}
    assert installed_on("darwin") == installed_on("win32")


@pytest.mark.parametrize("platform", ["win32", "cygwin", "freebsd14"])
def test_other_systems_are_refused_with_the_reason(platform):
    with pytest.raises(
        UserError, match=f"runs on Linux and macOS, and this is {platform}; on Windows .* WSL 2"
    ):
        platforms.check_system(platform)


def test_a_rank_ends_there_in_one_line(capsys):
    platforms.end_elsewhere("linux")
    with pytest.raises(SystemExit, match="2"):
        platforms.end_elsewhere("win32")
    assert capsys.readouterr().err.startswith("mlenergy: error: mlenergy runs on Linux and macOS")


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_these_are_not(platform):
    platforms.check_system(platform)


@pytest.mark.parametrize(
    ("missing", "platform", "reason"),
    [
        ("triton", "darwin", "needs triton, which has packages for Linux alone; use --engine diffusers"),
        ("triton", "linux", "needs the package triton; install it, or use --engine diffusers"),
        ("xfuser", "darwin", "needs the package xfuser; install it, or use --engine diffusers"),
        (None, "darwin", None),
    ],
)
def test_xdit_is_refused_where_it_cannot_be_imported(monkeypatch, missing, platform, reason):
    monkeypatch.setattr(platforms, "find_spec", lambda name: None if name == missing else object())
    assert platforms.reason_against_xdit(platform) == reason


def test_without_triton_the_other_engine_is_chosen(monkeypatch):
    assert resolve.plan_from(TINY, None, "test")[1].engine == "xdit"
    monkeypatch.setattr(resolve, "reason_against_xdit", lambda: "needs triton")
    assert resolve.plan_from(TINY, None, "test")[1].engine == "diffusers"
    with pytest.raises(UserError, match="--engine xdit needs triton"):
        resolve.plan_from(["--engine", "xdit", *TINY], None, "test")
