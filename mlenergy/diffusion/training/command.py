"""The verb: `mlenergy finetune --model_id MODEL --dataset DIR --out DIR`."""

from __future__ import annotations

from contextlib import ExitStack

from mlenergy.diffusion.config.parser import parse
from mlenergy.diffusion.distributed.cluster import Rank
from mlenergy.diffusion.results.lock import result_lock
from mlenergy.diffusion.supervision.exit_codes import exit_code_of
from mlenergy.diffusion.supervision.terminal import redirect_output, spare_log_path
from mlenergy.diffusion.training.folder import TrainingFolder
from mlenergy.diffusion.training.options import PROG, FinetuneArgs
from mlenergy.diffusion.training.plan import plan_training, request_of


def main(argv: list[str]) -> int:
    """Train, alone or as one of the processes that torchrun has started; every failure is one line."""
    args = parse(FinetuneArgs, argv, PROG)
    return exit_code_of(lambda _argv, rank: _train(args, rank))


def _train(args: FinetuneArgs, rank: Rank) -> None:
    """Take the folder, on rank 0 and before torch is imported, and train.

    Raises:
        UserError: the model, the images or the folder cannot be used, or the training failed.
        Interrupted: a signal ended it.
    """
    plan, images = plan_training(args)
    folder = TrainingFolder(args.out)
    request = request_of(args, plan, images, rank)
    is_done = False
    with ExitStack() as stack:
        if rank.is_main:
            stack.enter_context(result_lock(folder.lock, "--out"))
            is_done = folder.claim(request)
        if is_done:
            print(f"{args.out} is complete already: see {folder.record}", flush=True)
        if is_done and rank.world_size == 1:
            return
        log = folder.log if rank.is_main else spare_log_path(rank.rank)
        terminal = stack.enter_context(redirect_output(log, debug=args.debug))
        if rank.is_main and not is_done:
            print("importing torch and diffusers", file=terminal.err, flush=True)
        from mlenergy.diffusion.training.session import train

        train(args, plan, images, rank, request, is_done, terminal)
