"""The options of `mlenergy dataset prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mlenergy.diffusion.config.option import Range
from mlenergy.diffusion.config.parser import option_group
from mlenergy.diffusion.config.workloads import MOST_SEED, PIXELS

PROG = "mlenergy dataset"


@option_group()
@dataclass(frozen=True, kw_only=True)
class DatasetArgs:
    """Draw images with captions from a source into a folder: PNG files, metadata.jsonl and dataset.json.

    What was interrupted goes on where it stopped; what is complete is left alone.
    """

    operation: tyro.conf.Positional[Literal["prepare"]]
    """prepare: make a folder of images and captions."""
    source: tyro.conf.Positional[str]
    """Folder of images with a metadata.jsonl or .txt files beside them; Parquet file or folder of them; or
    hub id ORG/NAME[/CONFIGURATION][:SPLIT][@REVISION]."""
    out: Path
    """Folder to write."""
    num_samples: Annotated[int, Range(least=1, most=100_000_000)] = 2000
    """Images to draw, each row at most once. A smaller number gives the first images of a larger one."""
    seed: Annotated[int, Range(least=0, most=MOST_SEED)] = 42
    """Seed of the draw."""
    image_column: str = "image"
    """Column of the images; a folder has none."""
    caption_column: str = "text"
    """Column of the captions."""
    caption_template: str | None = None
    """Text with columns in braces, such as "{style} painting by {artist}", instead of one column.
    Default: none."""
    plain_labels: bool = False
    """Write the names of classes with spaces for _ and -: Abstract Expressionism, not
    Abstract_Expressionism."""
    size: Annotated[int | None, PIXELS] = None
    """Side in pixels: the largest centred square, resampled by Lanczos. Default: images as they are."""
    skip_unusable: bool = False
    """Draw others for images that cannot be read and captions that are empty, and count them. By default they
    are named and refused."""
