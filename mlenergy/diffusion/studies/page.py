"""A study's report as one HTML file without a script: tables, charts as inline SVG, images as data."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

from mlenergy.diffusion.report.html.extras import thumbnail
from mlenergy.diffusion.report.html.page import asset, digest
from mlenergy.diffusion.studies.chart import chart_svg
from mlenergy.diffusion.studies.content import Chart, Part, Picture, Pictures, Report, Table, Text
from mlenergy.diffusion.studies.text import Notes, is_numeric, value_text
from mlenergy.diffusion.version import __version__

_OWN_STYLE = """
.marker { fill: currentColor; } .bar { stroke: currentColor; stroke-width: 1.5; }
.fit { fill: none; stroke: currentColor; stroke-width: 1.5; stroke-dasharray: 6 4; }
.joined { fill: none; stroke: currentColor; stroke-width: 1.5; }
.s0 { color: var(--c0); } .s1 { color: var(--c1); } .s2 { color: var(--c2); } .s3 { color: var(--c3); }
.s4 { color: var(--c4); } .s5 { color: var(--c5); } .s6 { color: var(--c6); } .s7 { color: var(--c7); }
ol.notes { color: var(--soft); font-size: .88rem; max-width: 110ch; }
td.number { white-space: nowrap; } td { white-space: normal; }
.pictures td { vertical-align: top; max-width: 14rem; white-space: normal; }
.pictures img { display: block; border-radius: 4px; }
.pictures p { margin: .2rem 0; font-size: .8rem; color: var(--soft); }
"""


def page_of(report: Report, head: Mapping[str, Any]) -> str:
    """The page. Its policy lets a browser run no script and ask no address for anything."""
    style = asset("page.css") + _OWN_STYLE
    allowed = f"style-src '{digest(style)}'; img-src data:"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    notes = Notes()
    parts = "\n".join(line for part in report.parts for line in _part(part, notes))
    reasons = "".join(f"<li>{_e(reason)}</li>" for _, reason in notes.rows())
    below = f'<section><h2>Notes</h2><ol class="notes">{reasons}</ol></section>' if reasons else ""
    summary = "".join(f"<p>{_e(line)}</p>" for line in report.summary)
    footer = f"{head['command']} — mlenergy-diffusion {__version__}, {head['date']}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{_e(report.title)}</title>
<style>{style}</style>
</head>
<body>
<header><div><h1>{_e(report.title)}</h1>{summary}</div></header>
<main>
{parts}
{below}
</main>
<footer><p>{_e(footer)}</p></footer>
</body>
</html>
"""


def _part(part: Part, notes: Notes) -> Iterator[str]:
    yield f"<section><h2>{_e(part.title)}</h2>"
    if isinstance(part, Table):
        yield from _table(part, notes)
    elif isinstance(part, Chart):
        yield f"<figure>{chart_svg(part)}</figure>"
    elif isinstance(part, Pictures):
        yield from _pictures(part, notes)
    else:
        yield from _text(part)
    note = getattr(part, "note", "")
    if note:
        yield f'<p class="note">{_e(note)}</p>'
    yield "</section>"


def _text(part: Text) -> Iterator[str]:
    if part.preformatted:
        yield f"<pre>{_e(chr(10).join(part.lines))}</pre>"
    else:
        yield from (f"<p>{_e(line)}</p>" for line in part.lines)


def _table(table: Table, notes: Notes) -> Iterator[str]:
    sides = {c.key: ' class="number"' if is_numeric(table, c.key) else "" for c in table.columns}
    yield '<div class="scroll" tabindex="0"><table><thead><tr>'
    yield "".join(f'<th scope="col"{sides[c.key]}>{_e(c.label)}</th>' for c in table.columns)
    yield "</tr></thead><tbody>"
    for row in table.rows:
        values = (f"<td{sides[c.key]}>{_e(value_text(row[c.key], notes))}</td>" for c in table.columns)
        yield f"<tr>{''.join(values)}</tr>"
    yield "</tbody></table></div>"


def _pictures(part: Pictures, notes: Notes) -> Iterator[str]:
    yield '<div class="scroll" tabindex="0"><table class="pictures"><thead><tr><th></th>'
    yield "".join(f'<th scope="col">{_e(name)}</th>' for name in part.columns)
    yield "</tr></thead><tbody>"
    for heading, pictures in part.rows:
        cells = "".join(f"<td>{_picture(one, notes)}</td>" for one in pictures)
        yield f'<tr><th scope="row">{_e(heading)}</th>{cells}</tr>'
    yield "</tbody></table></div>"


def _picture(picture: Picture, notes: Notes) -> str:
    gap = picture.gap or "no image"
    if picture.file is not None:
        try:
            source = thumbnail(picture.file)
            return f'<img src="{source}" alt="{_e(picture.caption)}"><p>{_e(picture.caption)}</p>'
        except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all three for broken files
            gap = f"{picture.file.name}: {error}"
    return f"–{_e(notes.mark(gap))}<p>{_e(picture.caption)}</p>"


def _e(text: object) -> str:
    return html.escape(str(text))
