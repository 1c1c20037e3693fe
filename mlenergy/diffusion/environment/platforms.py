"""Operating systems that can run this program, and engines that can run on them."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from mlenergy.diffusion.errors import UserError


def check_system(platform: str = sys.platform) -> None:
    """Refuse systems that lack what a run is built on: signals, file locks, forked processes.

    Raises:
        UserError: this is neither Linux nor macOS.
    """
    if platform not in ("linux", "darwin"):
        raise UserError(
            f"mlenergy runs on Linux and macOS, and this is {platform}; on Windows install it in WSL 2"
        )


def end_elsewhere(platform: str = sys.platform) -> None:
    """End this process with one line and exit code 2 where `check_system` refuses."""
    try:
        check_system(platform)
    except UserError as error:
        print(f"mlenergy: error: {error}", file=sys.stderr)
        sys.exit(2)


def reason_against_xdit(platform: str = sys.platform) -> str | None:
    """The reason why xfuser cannot be imported here, with what to do; None where it can."""
    if find_spec("xfuser") is None:
        return "needs the package xfuser; install it, or use --engine diffusers"
    if find_spec("triton") is not None:
        return None
    if platform != "linux":
        return "needs triton, which has packages for Linux alone; use --engine diffusers"
    return "needs the package triton; install it, or use --engine diffusers"
