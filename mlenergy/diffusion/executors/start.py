"""One run's first process: torchrun's launcher, whose exit code is the run's own.

`torchrun` itself ends with 1 whatever the run ended with, so that a user's mistake, which no retry
mends, would look like a crash.
"""

from __future__ import annotations

import sys

# SIGUSR1 too, which Slurm sends before a time limit; torchrun hands each on to the run's processes.
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


def main(argv: list[str]) -> int:
    """Run the benchmark with `argv[0]` processes and the options that follow."""
    from mlenergy.diffusion.executors.torchrun import MODULE, torchrun

    # An address rather than the hostname, which not every machine or container can resolve.
    words = [
        "--standalone",
        "--local_addr=127.0.0.1",
        f"--nproc_per_node={argv[0]}",
        f"--signals_to_handle={SIGNALS}",
    ]
    return torchrun([*words, "-m", MODULE, *argv[1:]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
