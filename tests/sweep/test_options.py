import dataclasses

import pytest

from mlenergy.diffusion.config.args import BenchmarkArgs, parse_args
from mlenergy.diffusion.config.argv import to_argv
from mlenergy.diffusion.config.workloads import TextToImage
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.sweep.options import full_name, known_options

_MODEL = {"workload.model_id": "tiny/flux"}


def test_every_option_of_the_benchmark_is_known() -> None:
    own = {f.name for f in dataclasses.fields(BenchmarkArgs)}
    assert known_options() >= own | {f"workload.{f.name}" for f in dataclasses.fields(TextToImage)}


@pytest.mark.parametrize(
    "written", ["batch_size", "batch-size", "--workload.batch-size", "workload.batch_size"]
)
def test_short_and_long_names(written: str) -> None:
    assert full_name(written) == "workload.batch_size"


def test_refuses_what_a_sweep_decides() -> None:
    with pytest.raises(UserError, match="use mlenergy sweep --no_resume"):
        full_name("overwrite_results")


def test_the_benchmark_understands_what_is_written() -> None:
    options = {**_MODEL, "ulysses_degree": 2, "save_images": False, "debug": True, "ring_degree": None}
    options |= {"workload.guidance_scale": 3.5, "workload.prompt_prefix": "-a 'photo' of "}
    args = parse_args(to_argv(options))
    assert (args.ulysses_degree, args.ring_degree, args.save_images, args.debug) == (2, None, False, True)
    assert args.workload.guidance_scale == 3.5
    assert args.workload.prompt_prefix == "-a 'photo' of "


def test_every_switch_can_be_written_both_ways() -> None:
    switches = [f.name for f in dataclasses.fields(BenchmarkArgs) if isinstance(f.default, bool)]
    refused = {"dry_run", "overwrite_results"}
    for name in sorted(set(switches) - refused):
        assert getattr(parse_args(to_argv({**_MODEL, name: False})), name) is False
        try:
            assert getattr(parse_args(to_argv({**_MODEL, name: True})), name) is True
        except UserError as error:
            assert "is not available in this version" in str(error)
