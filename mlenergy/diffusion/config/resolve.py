"""From a command line to a plan, for every way in: the benchmark, `mlenergy plan`, `mlenergy run`."""

from __future__ import annotations

from collections.abc import Sequence

from mlenergy.diffusion.config.args import BenchmarkArgs, parse_args
from mlenergy.diffusion.config.plan import Plan, make_plan
from mlenergy.diffusion.environment.device import detect_device
from mlenergy.diffusion.models.resolve import resolve_model


def plan_from(argv: Sequence[str], world_size: int | None, prog: str) -> tuple[BenchmarkArgs, Plan]:
    """Parse, look at the device, resolve the model, plan. Nothing loads and torch is not imported.

    Args:
        argv: the command line without the program's name.
        world_size: processes that were started; None where none were, so that the degrees decide.
        prog: what the user typed before the options, for error messages.

    Raises:
        UserError: one line that says what to do.
    """
    args = parse_args(argv, prog)
    device, device_name = detect_device(args.device)
    spec = resolve_model(args.workload.model_id, args.workload.revision)
    return args, make_plan(args, spec, world_size, device, device_name)
