"""The verb: `mlenergy report DIR`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from mlenergy.diffusion.config.parser import option_group, parse
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.report.html.collect import Limits, Report
from mlenergy.diffusion.report.html.page import page_of
from mlenergy.diffusion.results.atomic import written_aside
from mlenergy.diffusion.results.find import Found, find_results, require_folder
from mlenergy.diffusion.results.read import load_result

PROG = "mlenergy report"


@option_group()
@dataclass(frozen=True)
class ReportArgs:
    """Write one HTML file with every result below a folder: table, charts, images. It needs no network."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder with results, at any depth."""
    out: Path = Path("report.html")
    """File to write. One that is there is replaced."""
    title: str | None = None
    """Heading of the page. Default: the folder's name."""
    rows: int = 5000
    """Runs in the page, the newest ones. Each takes about 1 kB."""
    images: int = 300
    """Thumbnails in the page, of all runs together; 0: none. Each takes about 6 kB."""
    clips_mb: float = 30.0
    """Megabytes of videos that play inside the page, at most a tenth of it each; the others are links."""
    published: bool = True
    """Leave out the figures that the public ML.ENERGY leaderboard has published."""


def main(argv: list[str]) -> int:
    """Write the page.

    Raises:
        UserError: there is no such folder, no result in it, or the page cannot be written.
    """
    args = parse(ReportArgs, argv, PROG)
    if args.images < 0 or args.rows < 1 or not 0 <= args.clips_mb < 10_000:
        raise UserError("--images and --clips_mb must be 0 or more, --rows 1 or more")
    if args.out.is_dir():
        raise UserError(f"--out {args.out} is a folder; name a file, such as {args.out / 'report.html'}")
    clips_bytes = int(args.clips_mb * 1e6)
    limits = Limits(images=args.images, clip_bytes=clips_bytes // 10, clips_bytes=clips_bytes)
    report = gathered(args.folder, limits, args.rows, args.out.parent)
    if not report.rows:
        raise UserError(_nothing(args.folder, report))
    now = datetime.now().astimezone()
    title = args.title or f"What {args.folder.resolve().name} cost"
    page = page_of(title, report.data(_summary(args.folder, report), args.published, now))
    with written_aside(args.out) as aside:
        aside.write_text(page, encoding="utf-8", errors="replace")
    left_out = f"; {len(report.problems)} left out, listed at its end" if report.problems else ""
    print(f"{args.out}: {_runs(len(report.rows))}, {args.out.stat().st_size / 1e6:.1f} MB{left_out}")
    return 0


def gathered(folder: Path, limits: Limits, most_rows: int, page_folder: Path = Path()) -> Report:
    """The newest results below a folder, by the time of their files; what cannot be shown has its reason.

    Only these are read, so that a folder of a hundred thousand results takes no longer than its names.

    Raises:
        UserError: there is no such folder.
    """
    require_folder(folder)
    report = Report(limits, page_folder)
    found = sorted(find_results(folder), key=_age)
    for one in found[:most_rows]:
        if one.state is not None:
            report.problems.append((one.folder, one.reason or one.state))
            continue
        loaded = load_result(folder / one.folder / one.file, one.folder)
        if loaded.content is not None:
            report.add(loaded.content, folder / one.folder, one.folder)
        else:
            state = loaded.record.state.replace("_", " ")
            report.problems.append((loaded.record.path, f"{state}: {loaded.record.reason}"))
    older = len(found) - most_rows
    if older > 0:
        which = "1 older one is" if older == 1 else f"{older:,} older ones are"
        report.problems.append(("results", f"{which} left out: the page holds {most_rows:,} (--rows)"))
    return report


def _age(found: Found) -> float:
    return -found.stamp.mtime_ns if found.stamp is not None else 0.0


def _nothing(folder: Path, report: Report) -> str:
    if not report.problems:
        return f"there is no result below {folder}; name a folder that holds some"
    path, reason = report.problems[0]
    more = f", and {len(report.problems) - 1} more" if len(report.problems) > 1 else ""
    return f"there is no complete result below {folder}; {path}: {reason}{more}"


def _summary(folder: Path, report: Report) -> str:
    left_out = f", {len(report.problems)} left out" if report.problems else ""
    return f"{_runs(len(report.rows))} below {folder}{left_out}"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs"
