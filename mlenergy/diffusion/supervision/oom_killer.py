"""The host's OOM killer: it ends a process by SIGKILL, which leaves no word, and counts what it ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kills:
    """Processes that the kernel has ended for lack of memory, up to one moment; None: not known."""

    group: int | None  # in this process's control group, whose memory may be limited
    host: int | None  # on the whole host

    @classmethod
    def count(cls, root: Path = Path("/")) -> Kills:
        """Both counters now.

        Source: cgroups(7) and the kernel's admin guide: `oom_kill` in memory.events (version 2) or
        memory.oom_control (version 1) of the group, and in /proc/vmstat.
        """
        group = next((n for file in _group_files(root) if (n := _oom_kill(file)) is not None), None)
        return cls(group, _oom_kill(root / "proc/vmstat"))

    def since(self, earlier: Kills) -> str | None:
        """Verdict of the counters on a process that was killed meanwhile; None: it was not memory."""
        if _grew(self.group, earlier.group):
            return "the host's OOM killer ended a process of this job or container: no memory was left"
        if _grew(self.host, earlier.host):
            return "the host's OOM killer ended a process meanwhile: no memory was left"
        if self.host is None or earlier.host is None:
            return "perhaps killed for lack of host memory"
        return None


def _grew(now: int | None, before: int | None) -> bool:
    return now is not None and before is not None and now > before


def _group_files(root: Path) -> list[Path]:
    """Files that may count for this process's control group; in a container its path may be the host's."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        here = path.lstrip("/")
        if not controllers:
            mounts = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
            files += [mount / place / "memory.events" for mount in mounts for place in (here, "")]
        elif "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup/memory"
            files += [mount / place / "memory.oom_control" for place in (here, "")]
    return files


def _oom_kill(file: Path) -> int | None:
    try:
        for line in file.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        pass
    return None
