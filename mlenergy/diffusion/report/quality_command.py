"""The verb `mlenergy quality RUN…`: FID, KID, CLIP score, LPIPS, SSIM and PSNR of runs that are finished."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mlenergy.diffusion.config.option import Range
from mlenergy.diffusion.config.parser import option_group, parse
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.quality.evaluate import Extractors, Settings
from mlenergy.diffusion.report.lines import console_for, labelled, title
from mlenergy.diffusion.report.quality_view import section_rows
from mlenergy.diffusion.results.collect import collect, no_results
from mlenergy.diffusion.results.quality import compute, read_reference
from mlenergy.diffusion.results.read import read_result

PROG = "mlenergy quality"
USER_ERROR = 2


@option_group()
@dataclass(frozen=True)
class QualityArgs:
    """Compute quality metrics from the saved images of finished runs, and write them into their results.

    After an interruption the same command goes on. docs/quality.md says which files of weights fit.
    """

    run: tyro.conf.Positional[tuple[str, ...]]
    """Result folders, folders that hold some at any depth, or patterns in quotes."""
    metrics: Annotated[str | None, tyro.conf.arg(metavar="METRIC,...")] = None
    """Of fid, kid, clip, lpips, ssim and psnr, separated by commas. Default: all that the other options
    allow."""
    reference: Path | None = None
    """A folder of images, with metadata.jsonl or without; a Parquet file; a finished run of the same prompts
    and seeds; or, for FID, a file of statistics (.npz with mu and sigma)."""
    inception: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """For FID and KID: weights of Inception v3, a TorchScript of another network, or OWNER/REPOSITORY/FILE of
    the hub."""
    inception_preprocessing: Literal["pytorch-fid", "torch-fidelity"] = "pytorch-fid"
    """How images are resized for Inception v3: the published values of these two programs differ by it."""
    clip: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """For CLIP score: a CLIP model's folder or hub id. With --metrics clip, by default
    openai/clip-vit-base-patch32."""
    clip_revision: str | None = None
    """Branch, tag or commit of the hub's model. Default: its main branch."""
    lpips: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """For LPIPS: weights of AlexNet or VGG16, or a TorchScript of two images."""
    batch_size: Annotated[int, Range(least=1)] = 16
    """Images in memory at a time."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    kid_subsets: Annotated[int, Range(least=1)] = 100
    """Subsets of KID; its standard deviation is over them."""
    kid_subset_size: Annotated[int | None, Range(least=2)] = None
    """Images in each of them. Default: 1000, or half of the smaller set where that is less."""
    seed: Annotated[int, Range(least=0, most=2**63 - 1)] = 0
    """Of the draw of these subsets."""
    image_column: str = "image"
    """Column of Parquet files that holds the images."""
    text_column: str = "text"
    """Column of Parquet files and metadata.jsonl that holds the captions."""
    try_random_weights: bool = False
    """Take runs with random weights too, to try this out: their values are marked, and in no table."""
    json: bool = False
    """Print the results' `quality` as JSON, by result folder."""


def main(argv: list[str]) -> int:
    """Compute and print the metrics of each run.

    Returns:
        0, or 2 where a run of several could not be evaluated.

    Raises:
        UserError: the command line is not understood, or the only run does not fit it.
    """
    args = parse(QualityArgs, argv, PROG)
    found = collect(args.run)
    if not found.results:
        raise no_results(args.run, found.others)
    return _evaluate(args, [Path(record.folder) for record in found.results])


def _evaluate(args: QualityArgs, folders: Sequence[Path]) -> int:
    extractors = Extractors(
        args.inception, args.inception_preprocessing, args.clip, args.clip_revision, args.lpips
    )
    settings = Settings(args.batch_size, args.device, args.kid_subsets, args.kid_subset_size, args.seed)
    metrics = [] if args.metrics is None else [name.strip() for name in args.metrics.split(",")]
    reference = None
    if args.reference is not None:
        columns = {"image_column": args.image_column, "text_column": args.text_column}
        reference = read_reference(args.reference, **columns)
    sections: dict[str, Any] = {}
    code = 0
    if reference is not None and len(folders) > 1:  # a folder may hold the reference too
        folders = [folder for folder in folders if folder.resolve() != reference.path.resolve()]
    for folder in folders:
        with ProgressLines() as progress:
            try:
                section = compute(
                    folder,
                    metrics,
                    reference,
                    extractors,
                    settings=settings,
                    other_runs=folders,
                    try_random_weights=args.try_random_weights,
                    progress=progress.show,
                )
            except UserError as error:
                if len(folders) == 1:
                    raise
                progress.close()
                print(f"mlenergy: error: {error}", file=sys.stderr)
                code = USER_ERROR
                continue
            except KeyboardInterrupt:
                progress.close()
                kept = f"what was computed is kept in {folder}, and the same command goes on"
                print(f"mlenergy: error: interrupted by SIGINT: {kept}", file=sys.stderr)
                return 128 + signal.SIGINT
        sections[str(folder)] = section
        if not args.json:
            _print(folder, section)
    if args.json:
        print(json.dumps(sections, indent=2, ensure_ascii=True))
    return code


def _print(folder: Path, section: Mapping[str, Any]) -> None:
    console = console_for(sys.stdout)
    console.print(title(str(folder)), soft_wrap=True)
    for line in labelled(section_rows(section, read_result(folder / "results.json") or {})):
        console.print(line, soft_wrap=True)


class ProgressLines:
    """How many images are done: one line that is overwritten on a terminal; in a pipe the first and last."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._what: str | None = None

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, what: str, done: int, of: int) -> None:
        """Say that so many images are done."""
        text = f"{what}: {done:,} of {of:,} images"
        if self._is_terminal:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif what != self._what or done == of:
            print(text, file=sys.stderr, flush=True)
        self._what = what

    def close(self) -> None:
        """Take the line off the terminal."""
        if self._is_terminal and self._what is not None:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self._what = None
