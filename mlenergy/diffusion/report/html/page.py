"""The page itself: template, style, script and data in one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib import resources
from string import Template
from typing import Any


def page_of(title: str, data: dict[str, Any]) -> str:
    """The report as HTML.

    The policy in its head lets a browser run this script alone, take images and videos from the file alone
    and ask no address for anything, whatever a prompt says.
    """
    style, script = asset("page.css"), asset("page.js")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{digest(script)}'",
            f"style-src '{digest(style)}'",
            "img-src data:",
            "media-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return Template(asset("page.html")).substitute(
        title=html.escape(title), policy=policy, style=style, script=script, data=embedded(data)
    )


def embedded(data: Any) -> str:
    """JSON that may stand inside of a script element: no character that a parser of HTML looks for.

    Raises:
        ValueError: a number is not finite; every reader of JSON would refuse it.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def asset(name: str) -> str:
    """A file of the page's parts, as text."""
    return (resources.files("mlenergy.diffusion.report.html") / "assets" / name).read_text("utf-8")


def digest(text: str) -> str:
    """The hash by which a page's policy names a style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
