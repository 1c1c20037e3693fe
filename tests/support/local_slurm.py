"""A real Slurm of two nodes on this machine: munge, slurmctld and a slurmd on each of two namespace hosts."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from namespace_lan import SWITCH, Lan

NODES = ("n0", "n1")
GPUS_PER_NODE = 2
_PACKAGES = ("slurm-wlm", "munge", "iproute2")
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "ip")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY")

_CONFIG = """\
ClusterName=test
SlurmctldHost={head}({head_address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
KillWait=5
JobRequeue=1
EnforcePartLimits=ALL
GresTypes=gpu
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why there can be no Slurm here, or None; as root the missing packages are installed from Debian."""
    import namespace_lan

    if os.geteuid() != 0:
        return "a Slurm of one's own needs root"
    if _missing() and shutil.which("apt-get"):
        install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *_PACKAGES]
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (install, ["apt-get", "update", "--quiet"], install):
            if _missing():
                subprocess.run(command, capture_output=True, env=quiet, timeout=240)
    if _missing():
        return f"no {', '.join(_missing())} (Debian packages {', '.join(_PACKAGES)})"
    return namespace_lan.why_not()


def _missing() -> list[str]:
    return [program for program in _PROGRAMS if shutil.which(program) is None]


class LocalSlurm:
    """A running Slurm; jobs are submitted from the switch, which is the login node. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lan = Lan(NODES, folder)

    def __enter__(self) -> LocalSlurm:
        self._write_files()
        self.lan.__enter__()
        try:
            self._start()
        except BaseException:
            self.lan.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.lan.close()

    def run(
        self, words: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command on the login node, with this Slurm's configuration."""
        whole = {**os.environ, **(env or {}), "SLURM_CONF": str(self.folder / "slurm.conf")}
        return self.lan.run(SWITCH, words, cwd=cwd, env=whole)

    def submit(self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> str:
        """sbatch; the job's id."""
        done = self.run(["sbatch", "--parsable", *words], cwd=cwd, env=env)
        if done.returncode:
            raise RuntimeError(f"sbatch: {done.stderr.strip()}")
        return done.stdout.strip().split(";")[0]

    def show(self, job: str) -> dict[str, str]:
        """What the controller knows of a job."""
        text = self.run(["scontrol", "show", "job", job, "--oneliner"]).stdout
        return dict(re.findall(r"(\S+?)=(\S*)", text))

    def states(self, job: str) -> list[str]:
        """The state of each task of an array, or of the one job."""
        text = self.run(["scontrol", "show", "job", job, "--oneliner"]).stdout
        return re.findall(r"JobState=(\S+)", text)

    def wait(self, job: str, timeout_s: float = 120) -> list[str]:
        """Wait until all tasks of a job have ended; their states."""
        return self.wait_for(job, lambda states: bool(states) and all(s in ENDED for s in states), timeout_s)

    def wait_for(self, job: str, enough, timeout_s: float = 60) -> list[str]:  # type: ignore[no-untyped-def]
        """Wait until the states of a job's tasks are as wanted."""
        limit = time.monotonic() + timeout_s
        while not enough(states := self.states(job)):
            if time.monotonic() > limit:
                raise TimeoutError(f"job {job} is {states} after {timeout_s:.0f} s: {self.show(job)}")
            time.sleep(0.25)
        return states

    def processes(self, node: str) -> list[str]:
        """Command lines of what runs on a node."""
        return self.lan.run(node, ["ps", "-eo", "args"]).stdout.splitlines()

    def _write_files(self) -> None:
        for name in ("munge", "state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(mode=0o755)
        for folder in (self.folder, self.folder / "munge"):
            folder.chmod(0o755)  # munge's clients must reach its socket
        key = self.folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        devices = [self.folder / f"nvidia{number}" for number in range(GPUS_PER_NODE)]
        for device in devices:
            os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))  # Slurm wants a device, so that it counts it
        files = f"{self.folder}/nvidia[0-{GPUS_PER_NODE - 1}]"
        (self.folder / "gres.conf").write_text(f"NodeName={','.join(NODES)} Name=gpu File={files}\n")
        nodes = [
            f"NodeName={node} NodeAddr={self.lan.addresses[node]} CPUs=8 RealMemory=16000 "
            f"Gres=gpu:{GPUS_PER_NODE} State=UNKNOWN"
            for node in NODES
        ]
        config = _CONFIG.format(
            folder=self.folder,
            head=SWITCH,
            head_address=self.lan.addresses[SWITCH],
            nodes="\n".join(nodes),
        )
        (self.folder / "slurm.conf").write_text(config)

    def _start(self) -> None:
        munge = self.folder / "munge"
        self._daemon(
            SWITCH,
            *("munged", f"--key-file={munge}/key", f"--socket={munge}/socket", f"--pid-file={munge}/pid"),
            *(f"--log-file={munge}/log", f"--seed-file={munge}/seed"),
        )
        self._daemon(SWITCH, "slurmctld")
        for node in NODES:
            self._daemon(node, "slurmd", "-N", node)
        limit = time.monotonic() + 30
        while (states := self._node_states()) != ["idle"] * len(NODES):
            if time.monotonic() > limit:
                raise RuntimeError(f"the nodes are {states}:\n{self._logs()}")
            time.sleep(0.2)

    def _daemon(self, host: str, *words: str) -> None:
        environ = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        # A daemon keeps its standard streams open, so what it says before that goes to a file.
        with (self.folder / "start.log").open("a") as log:
            code = self.lan.popen(host, words, env=environ, stdout=log, stderr=log).wait(timeout=30)
        if code:
            raise RuntimeError(f"{words[0]} ended with {code}:\n{self._logs()}")

    def _node_states(self) -> list[str]:
        return self.run(["sinfo", "--noheader", "--Node", "--format=%T"]).stdout.split()

    def _logs(self) -> str:
        return "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in self.folder.glob("*.log"))
