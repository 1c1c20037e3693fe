"""The verb: `mlenergy dataset prepare SOURCE --out DIR`."""

from __future__ import annotations

from pathlib import Path

from mlenergy.diffusion.config.parser import parse
from mlenergy.diffusion.dataset.captions import check_columns, fields_of
from mlenergy.diffusion.dataset.options import PROG, DatasetArgs
from mlenergy.diffusion.dataset.source import METADATA, FolderSource, Source
from mlenergy.diffusion.errors import UserError


def main(argv: list[str]) -> int:
    """Prepare a folder of images and captions.

    Raises:
        UserError: the source cannot be had or lacks what was asked for, or the folder cannot be written.
    """
    args = parse(DatasetArgs, argv, PROG)
    needed: tuple[str, ...] = (args.caption_column,)
    option = "--caption_column"
    if args.caption_template is not None:
        needed, option = fields_of(args.caption_template), "the columns of --caption_template"
    source = _source(args)
    if not isinstance(source, FolderSource):
        check_columns(source.name, [args.image_column], source.columns, "--image_column")
    check_columns(source.name, needed, source.columns, option)

    from mlenergy.diffusion.dataset.prepare import prepare
    from mlenergy.diffusion.results.lock import result_lock

    with result_lock(args.out / ".lock", "--out"):
        record = prepare(args, source, lambda line: print(line, flush=True))
    print(f"{args.out}: {record['images']} images with captions")
    if record["unusable_rows"]:
        print(f"  {len(record['unusable_rows'])} rows could not be used and were replaced: see dataset.json")
    if record["enlarged_images"]:
        print(f"  {record['enlarged_images']} images were smaller than --size and have been enlarged")
    return 0


def _source(args: DatasetArgs) -> Source:
    """The source that a text names: a folder of images, Parquet, or a dataset of the hub."""
    path = Path(args.source).expanduser()
    if path.is_dir():
        if path.resolve() == args.out.expanduser().resolve():
            raise UserError(f"{path} is both the source and --out; choose another --out")
        if (path / METADATA).is_file():
            return FolderSource(path)
        files = sorted(file for file in path.rglob("*.parquet") if file.is_file())
        if not files:
            return FolderSource(path)
        return _parquet(files, args)
    if path.is_file():
        if path.suffix.lower() != ".parquet":
            raise UserError(f"{path} is not a Parquet file; name one, a folder of images, or a hub id")
        return _parquet([path], args)

    from mlenergy.diffusion.prompts.sources import hub_dataset

    found = None if args.source.startswith((".", "/", "~")) else hub_dataset(args.source)
    if found is None:
        raise UserError(
            f"there is no file or folder {args.source}; name one, or a hub id "
            "ORG/NAME[/CONFIGURATION][:SPLIT][@REVISION]"
        )
    from mlenergy.diffusion.dataset.tables import hub_source

    return hub_source(found, args.image_column)


def _parquet(files: list[Path], args: DatasetArgs) -> Source:
    from mlenergy.diffusion.dataset.tables import parquet_source

    return parquet_source(files, args.source, args.image_column)
