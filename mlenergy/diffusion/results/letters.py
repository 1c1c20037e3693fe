"""Texts as parts of file names: letters and digits of every alphabet, cut by their length in UTF-8."""

from __future__ import annotations

import re
import sys
import unicodedata


def kept(text: str, punctuation: str) -> str:
    """The text with an underscore for every character that is no letter, no digit and not in `punctuation`.

    It is in the normal form NFC, so that equal words are equal names on every system. Where the file system
    does not write UTF-8, only ASCII remains.
    """
    if text.isascii() or sys.getfilesystemencoding() != "utf-8":
        return re.sub(rf"[^A-Za-z0-9{re.escape(punctuation)}]", "_", text)
    letters = (one if one in punctuation or _is_letter(one) else "_" for one in _composed(text))
    return "".join(letters)


def slug(text: str) -> str:
    """The text in lower case, its words joined by underscores; Latin letters lose their accents."""
    keeps_all = sys.getfilesystemencoding() == "utf-8"
    found: list[str] = []
    for one in _composed(text):
        plain = unicodedata.normalize("NFKD", one).encode("ascii", "ignore").decode()
        is_accent = unicodedata.category(one)[0] == "M" and bool(found) and found[-1].isascii()
        if plain:
            found.append(plain)
        elif keeps_all and _is_letter(one) and not is_accent:
            found.append(one)
    lower = _composed("".join(found).lower())
    return re.sub("_+", "_", "".join(one if _is_letter(one) else "_" for one in lower)).strip("_")


def start_of(text: str, most_bytes: int) -> str:
    """The longest beginning that takes at most that many bytes in UTF-8."""
    return text.encode()[:most_bytes].decode(errors="ignore")


def end_of(text: str, most_bytes: int) -> str:
    """The longest end that takes at most that many bytes in UTF-8."""
    return text.encode()[-most_bytes:].decode(errors="ignore")


def _composed(text: str) -> str:
    """In NFC; surrogates, which no file name can hold, become underscores."""
    return unicodedata.normalize("NFC", re.sub("[\ud800-\udfff]", "_", text))


def _is_letter(one: str) -> bool:
    """True for letters, the marks that belong to them, and digits."""
    return one.isalnum() if one.isascii() else unicodedata.category(one)[0] in "LMN"
