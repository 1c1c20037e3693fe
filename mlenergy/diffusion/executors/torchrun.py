"""`mlenergy run`: torchrun with as many processes as the degrees need, in this very process."""

from __future__ import annotations

import logging
import os

from mlenergy.diffusion.config.resolve import plan_from

MODULE = "mlenergy.diffusion.benchmark"


def launch(argv: list[str]) -> int:
    """Plan first, so that a mistake costs no process, then start torchrun's own launcher.

    Returns:
        The first failed process's exit code, or 0.

    Raises:
        UserError: the plan cannot work.
    """
    args, plan = plan_from(argv, None, prog="mlenergy run")
    if args.dry_run:
        from mlenergy.diffusion.report.plan_view import print_plan

        print_plan(plan)
        return 0
    processes = plan.parallel.world_size
    if processes > 1:
        # torchrun sets the same by itself, but not without a warning on the user's terminal.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    # An address rather than the hostname, which not every machine or container can resolve.
    words = ["--standalone", "--local_addr=127.0.0.1", f"--nproc_per_node={processes}"]
    return torchrun([*words, "-m", MODULE, *argv])


def torchrun(words: list[str]) -> int:
    """Run torchrun's launcher here; its report of a failed child is left out, since the child has spoken."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        run(parse_args(words))
    except SignalException as stopped:  # passed on to the processes, which have ended by now
        return 128 + int(stopped.sigval)
    except ChildFailedError as failed:
        _, failure = failed.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    return 0
