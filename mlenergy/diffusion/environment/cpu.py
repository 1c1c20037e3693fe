"""The arithmetic that this machine's processor has instructions for."""

from __future__ import annotations

import platform
import re
from pathlib import Path

# x86's extensions that multiply in float16; F16C, which most have, only converts.
_FLOAT16 = {"avx512_fp16", "amx_fp16"}


def emulates_float16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """True where float16 products are known to be done in software: on x86 without their extensions.

    Measured on an AMD EPYC with AVX-512 but without them, torch 2.13, one thread: the product of two
    matrices of 1024 x 1024 takes 2.3 s in float16 and 0.024 s in float32.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        text = cpuinfo.read_text()
    except OSError:
        return False
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return flags is not None and not _FLOAT16.intersection(flags.group(1).split())
