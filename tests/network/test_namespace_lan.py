"""The two hosts are what tests take them for, and go away with all that runs on them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from namespace_lan import Lan, why_not

pytestmark = pytest.mark.full

_CONNECT = "import socket; socket.create_connection(('n0', 5555), timeout=2).close()"
_LISTEN = (
    "import socket; s = socket.create_server(('', 5555)); print('ready', flush=True)\nwhile True: s.accept()"
)


def test_hosts_have_names_and_reach_each_other_until_the_cable_is_pulled(two_hosts: Lan) -> None:
    assert [two_hosts.run(host, ["hostname"]).stdout for host in ("n0", "n1")] == ["n0\n", "n1\n"]
    server = two_hosts.popen("n0", [sys.executable, "-c", _LISTEN], stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"

    def reaches() -> bool:
        return two_hosts.run("n1", [sys.executable, "-c", _CONNECT]).returncode == 0

    assert reaches()
    two_hosts.cut("n1")
    assert not reaches()
    two_hosts.reconnect("n1")
    assert reaches()
    two_hosts.close()
    assert server.wait(timeout=10) != 0


def test_nothing_is_left_when_the_test_process_is_killed(tmp_path: Path) -> None:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    marker = f"sleep 7{time.monotonic_ns() % 10**6}"
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1] / 'support')!r})\n"
        "import pathlib, namespace_lan\n"
        f"lan = namespace_lan.Lan(['n0'], pathlib.Path({str(tmp_path)!r})).__enter__()\n"
        f"lan.popen('n0', {marker.split()!r})\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    test = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert test.stdout is not None
    assert test.stdout.readline() == "ready\n"
    limit = time.monotonic() + 10
    while not _runs(marker) and time.monotonic() < limit:
        time.sleep(0.05)
    assert _runs(marker)
    test.kill()
    test.wait()
    while _runs(marker) and time.monotonic() < limit + 10:
        time.sleep(0.05)
    assert not _runs(marker)


def _runs(command_line: str) -> bool:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    return command_line in listed.splitlines()
