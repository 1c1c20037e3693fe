"""torchrun on this machine: in this very process for `mlenergy run`, as a process of its own for each job.

    python -m mlenergy.diffusion.executors.torchrun PROCESSES OPTIONS

starts the benchmark with PROCESSES processes and exits with the benchmark's own exit code. The command
`torchrun` exits with 1 whatever the benchmark exited with, so that a user's mistake, which no retry fixes,
would look like a crash.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from mlenergy.diffusion.config.resolve import plan_from
from mlenergy.diffusion.executors.job import Job

MODULE = "mlenergy.diffusion.benchmark"
# SIGUSR1 too, which Slurm sends before a time limit; torchrun passes each on to the run's processes.
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


def launch(argv: list[str]) -> int:
    """Plan first, so that a mistake costs no process, then run the benchmark with the planned processes.

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
    return _torchrun(processes, argv)


def command_of(job: Job, extra: Sequence[str] = ()) -> list[str]:
    """The words that start a job on this machine; `extra` options come before its own."""
    module = "mlenergy.diffusion.executors.torchrun"  # not __name__, which is __main__ in a job's own process
    return [sys.executable, "-m", module, str(job.processes), *extra, *job.argv]


def _torchrun(processes: int, argv: Sequence[str], signals: str | None = None) -> int:
    """Run torchrun's launcher in this process, without its report of a failed child, which reports itself."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # An address rather than the hostname, which not every machine or container can resolve.
    words = ["--standalone", "--local_addr=127.0.0.1", f"--nproc_per_node={processes}"]
    if signals is not None:
        words.append(f"--signals_to_handle={signals}")
    try:
        run(parse_args([*words, "-m", MODULE, *argv]))
    except SignalException as stopped:  # passed on to the processes, which have ended by now
        return 128 + int(stopped.sigval)
    except ChildFailedError as failed:
        _, failure = failed.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    return 0


if __name__ == "__main__":
    sys.exit(_torchrun(int(sys.argv[1]), sys.argv[2:], SIGNALS))
