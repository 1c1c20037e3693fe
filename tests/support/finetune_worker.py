"""`mlenergy finetune` that gets a signal after some of its windows: SIGNAL WINDOWS OPTIONS."""

from __future__ import annotations

import os
import signal
import sys

from mlenergy.diffusion import cli


def main() -> int:
    number, windows = signal.Signals[sys.argv[1]], int(sys.argv[2])
    from mlenergy.diffusion.training.trainer import Trainer

    trained, train = [], Trainer.train

    def train_and_signal(self, batch):
        generated = train(self, batch)
        trained.append(batch)
        if len(trained) == windows:
            os.kill(os.getpid(), number)
        return generated

    Trainer.train = train_and_signal  # type: ignore[method-assign]
    sys.argv = ["mlenergy", "finetune", *sys.argv[3:]]
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
