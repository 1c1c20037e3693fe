"""Builds docker/Dockerfile.cpu without Docker: buildah in a chroot, on debootstrap's base. Needs root.

The base is this system's Debian release and this Python, so that the package index that serves this
environment serves the image too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PACKAGES = ("buildah", "debootstrap")
# What Python's own extension modules link to.
_LIBRARIES = (
    "ca-certificates,libssl3,libffi8,zlib1g,libbz2-1.0,liblzma5,libsqlite3-0,libreadline8,libexpat1,libuuid1"
)
_BASE = "localhost/base"
# Mounts and processes of a build that is killed go with it.
_CONTAINED = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
IMAGE = "localhost/mlenergy:cpu"
TIME_LIMIT_S = 1500


def why_not() -> str | None:
    """Why no image can be built here, or None; as root on Debian the tools are installed."""
    if os.geteuid() != 0:
        return "building an image without Docker needs root"
    if any(shutil.which(tool) is None for tool in _PACKAGES) and shutil.which("apt-get"):
        install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *_PACKAGES]
        subprocess.run(install, capture_output=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    missing = [tool for tool in _PACKAGES if shutil.which(tool) is None]
    return f"no {', '.join(missing)}" if missing else None


class ImageStore:
    """buildah's images and containers, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def buildah(self, *words: str) -> str:
        """Run buildah; its output."""
        own = ["--root", str(self.folder / "store"), "--runroot", str(self.folder / "state")]
        command = [*_CONTAINED, "buildah", *own, "--storage-driver", "overlay", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def build(self) -> None:
        """Make the base, then the image as `docker build` would."""
        self._make_base()
        arguments = ["--build-arg", f"BASE_IMAGE={_BASE}", *self._package_index()]
        file = str(ROOT / "docker" / "Dockerfile.cpu")
        self.buildah("bud", "--isolation", "chroot", *arguments, "--tag", IMAGE, "--file", file, str(ROOT))

    def configured(self, field: str) -> str:
        """A field of the image's configuration, such as User."""
        text = self.buildah("inspect", "--type", "image", "--format", f"{{{{.OCIv1.Config.{field}}}}}", IMAGE)
        return text.strip()

    def run(self, words: Sequence[str], user: int) -> str:
        """Run a command in a container of the image."""
        container = self.buildah("from", IMAGE).strip()
        # Unlike Docker, buildah does not make the container's name resolvable.
        alone = ["--isolation", "chroot", "--hostname", "localhost", "--user", str(user)]
        return self.buildah("run", *alone, container, "--", *words)

    def close(self) -> None:
        """Remove containers and images; their files go with the folder."""
        self.buildah("rm", "--all")
        self.buildah("rmi", "--all", "--force")

    def _make_base(self) -> None:
        context = self.folder / "base"
        system = context / "system"
        context.mkdir()
        release = dict(
            line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
        )
        suite = release["VERSION_CODENAME"].strip('"')
        make = ["debootstrap", "--variant=minbase", f"--include={_LIBRARIES}", suite, str(system)]
        subprocess.run(make, check=True, capture_output=True, timeout=TIME_LIMIT_S)
        skip = shutil.ignore_patterns("site-packages", "__pycache__", "test", "*.a")
        shutil.copytree(sys.base_prefix, system / "usr/local", ignore=skip, symlinks=True, dirs_exist_ok=True)
        subprocess.run(["chroot", str(system), "ldconfig"], check=True)
        (context / "Dockerfile").write_text("FROM scratch\nCOPY system /\n")
        self.buildah(
            "bud",
            "--isolation",
            "chroot",
            "--tag",
            _BASE,
            "--file",
            str(context / "Dockerfile"),
            str(context),
        )

    def _package_index(self) -> list[str]:
        """This environment's pip settings, and the local folders that they name, for the build."""
        listed = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        settings = {
            name.rpartition(".")[2]: value.strip("'\"")
            for name, _, value in (s.partition("=") for s in listed)
        }
        file = self.folder / "pip.conf"
        file.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
        words = [word.removeprefix("file://") for value in settings.values() for word in value.split()]
        folders = {
            Path(word) if Path(word).is_dir() else Path(word).parent for word in words if word.startswith("/")
        }
        # An index keeps its files beside its pages, so its parent is needed, too.
        folders = {
            folder.parent if folder.name == "simple" else folder for folder in folders if folder.is_dir()
        }
        mounts = [f"{file}:/etc/pip.conf:ro", *(f"{folder}:{folder}:ro" for folder in sorted(folders))]
        return [word for mount in mounts for word in ("--volume", mount)]
