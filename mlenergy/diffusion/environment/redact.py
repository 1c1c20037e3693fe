"""Secrets never reach a file: values of telling names, and strings of telling shape."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

REDACTED = "[redacted]"
_SECRET_NAME = re.compile(
    r"token(?!iz)|secret|passw(or)?d|passphrase|credential|(api|access|private|session)[_-]?key|auth(?!or)|cookie",
    re.IGNORECASE,
)
# Tokens of well-known services, addresses that carry a password, and anything after "Bearer".
_SECRET_SHAPE = re.compile(
    r"hf_[A-Za-z0-9]{8,}"
    r"|gh[pousr]_[A-Za-z0-9]{8,}|github_pat_[A-Za-z0-9_]{8,}|glpat-[\w-]{8,}"
    r"|sk-[A-Za-z0-9_-]{16,}|AKIA[0-9A-Z]{16}|xox[abpr]-[\w-]{8,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+"
    r"|(?<=bearer )\S+|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)",
    re.IGNORECASE,
)
_SHORTEST_SECRET = 6  # a shorter value ("1", "true") occurs by chance in harmless text


def redact(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The text without secrets: neither known shapes nor values of secret environment variables."""
    for name, value in environ.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, REDACTED)
    return _SECRET_SHAPE.sub(REDACTED, text)


def redact_arguments(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> list[str]:
    """A command line without secrets, the values of options such as ``--hub_token`` included."""
    kept: list[str] = []
    hide_next = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        telling = argument.startswith("-") and _SECRET_NAME.search(name) is not None
        if hide_next and not argument.startswith("--"):
            kept.append(REDACTED)
        elif telling and equals:
            kept.append(f"{name}={REDACTED}")
        else:
            kept.append(redact(argument, environ))
        hide_next = telling and not equals
    return kept


def redact_environment(environ: Mapping[str, str], names: re.Pattern[str]) -> dict[str, str]:
    """The variables whose names match, without secrets."""
    return {
        name: REDACTED if _SECRET_NAME.search(name) else redact(value, environ)
        for name, value in sorted(environ.items())
        if names.search(name)
    }
