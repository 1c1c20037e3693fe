"""Several hosts on one machine: Linux namespaces joined by a bridge. Needs root; leaves nothing behind.

Each host has its own network, hostname, mounts and process ids, and shares the file system, as nodes of a
cluster do. Everything hangs on one pipe a host: when the test process ends, however it ends, the pipe
closes, the host's first process ends, and the kernel ends and removes all the rest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

# The switch is a host too: it holds the bridge, and may run what is neither node's (a Slurm controller).
SWITCH = "head"
NETWORK = "10.77.0"
_NEW = ("--mount", "--net", "--uts", "--pid")

# bash stays as the host's first process, since that one has to collect orphaned children.
_FIRST_PROCESS = """\
set -e
hostname "$1"
mount --bind "$2/hosts" /etc/hosts
mount --bind "$2/nsswitch.conf" /etc/nsswitch.conf
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
ip link set lo up
echo ready
read -r _ || true
"""


def why_not() -> str | None:
    """Why hosts cannot be made here, or None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"network namespaces need {', '.join(missing)} (packages iproute2 and util-linux)"
    trial = subprocess.run(["unshare", *_NEW, "--fork", "true"], capture_output=True, text=True)
    return f"no namespaces here: {trial.stderr.strip()}" if trial.returncode else None


class Lan:
    """Hosts by name, each with one address that all others resolve.

    Use it as a context manager.
    """

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self.addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, 1)}
        self.addresses[SWITCH] = f"{NETWORK}.254"
        self._folder = folder
        self._leaders: dict[str, subprocess.Popen[str]] = {}
        self._pids: dict[str, int] = {}

    def __enter__(self) -> Lan:
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.addresses.items())]
        (self._folder / "hosts").write_text("\n".join(lines) + "\n")
        (self._folder / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
        try:
            for name in (SWITCH, *(name for name in self.addresses if name != SWITCH)):
                self._start_host(name)
                self._connect(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process of every host."""
        for leader in self._leaders.values():
            assert leader.stdin is not None
            leader.stdin.close()
        for leader in self._leaders.values():
            leader.wait(timeout=20)
        self._leaders.clear()

    def command(self, host: str, words: Sequence[str], cwd: Path | None = None) -> list[str]:
        """The words that run a command on a host."""
        into = ["nsenter", f"--target={self._pids[host]}", *_NEW, "--"]
        return [*into, "env", f"--chdir={cwd or self._folder}", *words]

    def popen(
        self, host: str, words: Sequence[str], *, cwd: Path | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command on a host."""
        return subprocess.Popen(self.command(host, words, cwd), text=True, **options)

    def run(
        self,
        host: str,
        words: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host and wait for it."""
        return subprocess.run(
            self.command(host, words, cwd), capture_output=True, text=True, env=env, timeout=timeout_s
        )

    def cut(self, host: str) -> None:
        """Pull the host's cable."""
        self._do(SWITCH, "ip", "link", "set", host, "down")

    def reconnect(self, host: str) -> None:
        """Put the cable back."""
        self._do(SWITCH, "ip", "link", "set", host, "up")

    def _start_host(self, name: str) -> None:
        new = ["unshare", *_NEW, "--fork", "--kill-child", "--mount-proc"]
        leader = subprocess.Popen(
            [*new, "bash", "-c", _FIRST_PROCESS, "host", name, str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._leaders[name] = leader
        assert leader.stdout is not None
        if leader.stdout.readline() != "ready\n":
            raise RuntimeError(f"host {name} did not start (exit code {leader.wait(timeout=20)})")
        children = Path(f"/proc/{leader.pid}/task/{leader.pid}/children").read_text().split()
        self._pids[name] = int(children[0])

    def _connect(self, name: str) -> None:
        address = f"{self.addresses[name]}/24"
        if name == SWITCH:
            self._do(SWITCH, "ip", "link", "add", "eth0", "type", "bridge")
        else:
            # Only the switch's network is entered, so that the peer's process id is the outer one.
            switch = ["nsenter", f"--target={self._pids[SWITCH]}", "--net", "--"]
            ends = ["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0"]
            subprocess.run([*switch, *ends, "netns", str(self._pids[name])], check=True)
            self._do(SWITCH, "ip", "link", "set", name, "master", "eth0", "up")
        self._do(name, "ip", "address", "add", address, "dev", "eth0")
        self._do(name, "ip", "link", "set", "eth0", "up")

    def _do(self, host: str, *words: str) -> None:
        done = self.run(host, words)
        if done.returncode:
            raise RuntimeError(f"{host}: {' '.join(words)}: {done.stderr.strip()}")
