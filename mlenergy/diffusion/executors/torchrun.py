"""torchrun's launcher with a light start: for `mlenergy run`, for the scripts in launch/, and for each job.

    python -m mlenergy.diffusion.executors.torchrun TORCHRUN_OPTIONS [--signal_lead_s 120] -- OPTIONS

starts the benchmark as `torchrun TORCHRUN_OPTIONS -m mlenergy.diffusion.benchmark OPTIONS` would. Beyond that
it answers signals from its first moments on, before torch is imported; it exits with the benchmark's own exit
code, where torchrun exits with 1 whatever happened; and it leaves out torchrun's report of a process that has
failed, which reports itself.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlenergy.diffusion.environment.imports import large_imports
from mlenergy.diffusion.errors import interrupted_before_measuring, quiet_pipe
from mlenergy.diffusion.supervision.oom_killer import Kills
from mlenergy.diffusion.supervision.parent import hold_lifeline
from mlenergy.diffusion.supervision.starting import UNHEARD, Starting, is_nohup

if TYPE_CHECKING:
    from mlenergy.diffusion.config.args import BenchmarkArgs
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.executors.job import Job

MODULE = "mlenergy.diffusion.benchmark"
LAUNCHER = "mlenergy.diffusion.executors.torchrun"  # not __name__, which is __main__ in a job's own process
# SIGUSR1 too, which Slurm sends before a time limit; torchrun passes each on to the run's processes.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
# An address rather than the hostname, which not every machine or container can resolve.
ONE_MACHINE = ("--standalone", "--local_addr=127.0.0.1")
_CPP_LEVEL = "TORCH_CPP_LOG_LEVEL"
_LEAD = "--signal_lead_s"
_USAGE = f"usage: python -m {LAUNCHER} TORCHRUN_OPTIONS [{_LEAD} SECONDS] -- OPTIONS OF THE BENCHMARK"


def launch(argv: list[str]) -> int:
    """`mlenergy run`: plan first, so that a mistake costs no process, then start the planned processes.

    Returns:
        The first failed process's exit code, or 0.

    Raises:
        UserError: the plan cannot work.
    """
    with Starting(speaks=True, signals=SIGNALS):
        # Here, so that signals are answered while they are imported.
        from mlenergy.diffusion.config.resolve import plan_from

        args, plan = plan_from(argv, None, prog="mlenergy run")
        if args.dry_run:
            from mlenergy.diffusion.report.plan_view import print_plan

            print_plan(plan)
            return 0
        if _print_finished(args, plan):
            return 0
        processes = plan.parallel.world_size
        if processes > 1:
            # torchrun sets the same by itself, but not without a warning on the user's terminal.
            os.environ.setdefault("OMP_NUM_THREADS", "1")
        code = _torchrun([*ONE_MACHINE, f"--nproc_per_node={processes}"], argv)
        if code == 128 + signal.SIGKILL:  # nobody is left to write it
            from mlenergy.diffusion.results.paths import RunPaths
            from mlenergy.diffusion.supervision.status import close_for_the_dead

            close_for_the_dead(RunPaths.of(plan).status, "a rank was ended by SIGKILL")
        return code


def _print_finished(args: BenchmarkArgs, plan: Plan) -> bool:
    """Print the saved result of a set-up that has one; returns whether it has.

    Raises:
        UserError: a run is at work in its folder.
    """
    from mlenergy.diffusion.report.run_view import print_finished
    from mlenergy.diffusion.results.lock import result_lock
    from mlenergy.diffusion.results.paths import RunPaths
    from mlenergy.diffusion.results.read import is_complete, read_result
    from mlenergy.diffusion.results.swap import recover_interrupted_swap

    paths = RunPaths.of(plan)
    # What has to look at a finished result needs the libraries.
    if args.overwrite_results or args.reference is not None or not paths.folder.is_dir():
        return False
    with result_lock(paths.lock):
        recover_interrupted_swap(paths)
        result = read_result(paths.results) if is_complete(paths) else None
    if result is not None:
        print_finished(result, paths, sys.stdout)
    return result is not None


def command_of(job: Job, extra: Sequence[str] = ()) -> list[str]:
    """The words that start a job on this machine; `extra` options come before its own."""
    words = [*ONE_MACHINE, f"--nproc_per_node={job.processes}"]
    return [sys.executable, "-m", LAUNCHER, *words, "--", *extra, *job.argv]


def main(words: list[str]) -> int:
    """Start the benchmark from torchrun's options and its own; see the module.

    Returns:
        The first failed process's exit code, or 0; 2 where `--` is missing.
    """
    if "--" not in words:
        print(_USAGE, file=sys.stderr)
        return 2
    middle = words.index("--")
    options, argv = words[:middle], words[middle + 1 :]
    speaks = os.environ.get("SLURM_PROCID", "0") == "0"  # of the nodes of a Slurm job, the first
    with Starting(speaks=speaks, signals=SIGNALS, exit_code=lambda number: exit_code_of(-number)):
        lead_s, options = _take_lead(options)
        if speaks and lead_s is not None:
            from mlenergy.diffusion.executors.time_limit import warning_of

            if (warning := warning_of(lead_s)) is not None:
                print(f"mlenergy: warning: {warning}", file=sys.stderr, flush=True)
        return _torchrun(options, argv, speaks=speaks)


def _take_lead(options: Sequence[str]) -> tuple[float | None, list[str]]:
    """The seconds of --signal_lead_s, and the options without it."""
    lead_s, others, words = None, [], iter(options)
    for word in words:
        name, _, value = word.partition("=")
        if name == _LEAD:
            lead_s = float(value or next(words))
        else:
            others.append(word)
    return lead_s, others


def _torchrun(options: Sequence[str], argv: Sequence[str], *, speaks: bool = True) -> int:
    """Run torchrun's launcher in this process.

    Args:
        options: torchrun's own.
        argv: the benchmark's.
        speaks: print the lines of what the benchmark's processes cannot tell themselves.
    """
    if speaks:
        print("starting", file=sys.stderr, flush=True)  # the next import takes seconds
    # torch reads it as its library loads: without it the store of another node's launcher that has ended is
    # told with a stack of C++. The benchmark's processes keep their own level.
    is_default = _CPP_LEVEL not in os.environ
    os.environ.setdefault(_CPP_LEVEL, "ERROR")
    with large_imports():
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.run import parse_args, run

    if is_default:
        del os.environ[_CPP_LEVEL]
    _silence_torchrun()
    # torchrun would undo nohup.
    names = ",".join(number.name for number in SIGNALS if not is_nohup(number))
    parsed = parse_args([*options, f"--signals_to_handle={names}", "-m", MODULE, *argv])
    with tempfile.NamedTemporaryFile(prefix="mlenergy-unheard-", delete=False) as file:
        unheard = Path(file.name)
    os.environ[UNHEARD] = str(unheard)
    kills_before = Kills.count()
    try:
        run(parsed)
    except SignalException as stopped:  # passed on to the processes, which have ended by now
        number = int(stopped.sigval)
        if speaks and unheard.exists():
            _say(interrupted_before_measuring(number, "starting"))
        return exit_code_of(-number)
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        number = -failure.exitcode
        if number > 0 and number != signal.SIGTERM:
            why = Kills.count().since(kills_before) if number == signal.SIGKILL else None
            name = signal.Signals(number).name
            _say(f"rank {rank} (process {failure.pid}) was ended by {name}" + (f", {why}" if why else ""))
        return exit_code_of(failure.exitcode)
    except Exception as error:  # other machines that cannot be reached, a port that is taken
        if "--debug" in argv:
            raise
        text = " ".join(str(error).split())
        _say(f"the processes could not be started, or lost each other: {type(error).__name__}: {text}")
        return 1
    finally:
        unheard.unlink(missing_ok=True)
    return 0


def exit_code_of(exitcode: int, environ: Mapping[str, str] = os.environ) -> int:
    """The launcher's exit code where one of its processes has ended with this one.

    Where one node has failed, srun sends SIGTERM to the others and then reports the highest exit code of all,
    which has to stay that of the failure.

    Args:
        exitcode: as the subprocess module tells it: -n after signal n.
        environ: with Slurm's variables.
    """
    code = exitcode if exitcode >= 0 else 128 - exitcode
    several_nodes = environ.get("SLURM_STEP_NUM_NODES", "1") != "1"
    return 1 if several_nodes and code == 128 + signal.SIGTERM else code


def _silence_torchrun() -> None:
    """Its loggers set their own levels as they are imported, so that their parent's level has no effect."""
    for name in ("torch.distributed.elastic", *logging.root.manager.loggerDict):
        if name.startswith(("torch.distributed.elastic", "torch.distributed.run")):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _say(line: str) -> None:
    print(f"mlenergy: error: {line}", file=sys.stderr, flush=True)


def _main() -> int:
    code = main(sys.argv[1:])
    # srun ends this node's launcher as soon as another one has failed: all is over here, the exit code too.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    return code


if __name__ == "__main__":
    hold_lifeline()
    sys.exit(quiet_pipe(_main))
