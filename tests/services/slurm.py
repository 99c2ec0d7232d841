"""A Slurm cluster of three nodes on this machine, each a `slurmd` of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import psutil

from tests.services.hosts import on_host
from tests.services.process import ServiceMissingError, eventually, free_port, server

INSTALL = (
    "apt-get install -y --no-install-recommends "
    "munge slurmctld slurmd slurm-client slurm-wlm-basic-plugins"
)

NODES = ("node1", "node2", "node3")

# Three partitions share two nodes: jobs of the second take nodes from jobs of the first, and those
# of the third wait for ever.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={place}/munge.sock
CredType=cred/munge
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool/%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/%n.pid
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/{task}
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=900
SchedulerParameters=sched_interval=2,batch_sched_delay=0
SlurmctldTimeout=30
SlurmdTimeout={timeout}
KillWait=5
MinJobAge=3600
ReturnToService=2
MessageTimeout=5
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
GresTypes=gpu
{nodes}
PartitionName=work Nodes=node1,node2 Default=YES MaxTime=60 State=UP PriorityTier=1
PartitionName=urgent Nodes=node1,node2 MaxTime=60 State=UP PriorityTier=9 PreemptMode=OFF
PartitionName=closed Nodes=node1,node2 State=DOWN
PartitionName=apart Nodes=node3 MaxTime=60 State=UP
"""

MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")

# Slurm finds the groups of memory by a link.
LIMITS = """\
CgroupPlugin=cgroup/v1
CgroupMountpoint={place}/cgroup
CgroupAutomount=no
ConstrainRAMSpace=yes
"""


def limits_memory() -> bool:
    """Tell whether nodes can limit what jobs use: as root, with version 1 of control groups."""
    return os.geteuid() == 0 and os.access(MEMORY_GROUPS / "cgroup.procs", os.W_OK)


class SlurmCluster:
    """A running cluster, whose daemons can be killed and started again.

    Parameters
    ----------
    timeout
        Seconds after which a node that does not answer is down.
    named
        Whether each node is a machine of its own name; see `tests.services.hosts`.

    Attributes
    ----------
    env
        The variable by which Slurm's commands find this cluster.
    """

    def __init__(self, place: Path, *, timeout: int = 30, named: bool = False) -> None:
        self._place = place
        self._timeout = timeout
        self._named = named
        self._groups = MEMORY_GROUPS / place.name
        self._daemons = {name: contextlib.ExitStack() for name in ("slurmctld", *NODES)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = {name: free_port() for name in self._daemons}
        self.env: Mapping[str, str] = {"SLURM_CONF": str(place / "slurm.conf")}
        self._configure()

    def run(self, *command: str) -> str:
        """Return what a command of Slurm prints."""
        done = subprocess.run(
            command, env={**os.environ, **self.env}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def state(self, job: str) -> str:
        """Return the state of a job that no longer changes."""

        def settled() -> str:
            state = self.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T").strip()
            return "" if state == "COMPLETING" else state

        return eventually(settled)

    def nodes(self) -> dict[str, str]:
        """Return the state of each node."""
        lines = self.run("sinfo", "-h", "-N", "-p", "work,apart", "-o", "%N %T").splitlines()
        return dict(line.split() for line in lines)

    def resume(self) -> None:
        """Let nodes take jobs again that were set aside, as an administrator does.

        A controller that was killed may start a job whose number a node still has. Slurm then sets
        the node aside: "Duplicate jobid".
        """
        drained = [name for name, state in self.nodes().items() if state.startswith("drain")]
        if drained:
            self.run("scontrol", "update", f"nodename={','.join(drained)}", "state=resume")

    def start(self, name: str) -> None:
        """Start the controller or a node, and wait until it takes part."""
        program = _find("slurmctld" if name == "slurmctld" else "slurmd") or name
        is_node = name in NODES
        command = [program, "-D", *(["-N", name] if is_node else [])]
        command = on_host(name if is_node and self._named else None, command)
        answers = (lambda: self._takes_part(name)) if is_node else self._controls
        self._processes[name] = self._daemons[name].enter_context(
            server(
                command,
                log=self._place / f"{name}.log",
                ready=answers,
                env={**os.environ, **self.env},
            )
        )

    def end(self, name: str) -> None:
        """End the controller or a node's daemon in order: the controller keeps what it knows.

        It writes its jobs down some seconds after they change, and has jobs of which it does not
        know cancelled when it is back.
        """
        self._daemons[name].close()

    def kill(self, name: str) -> None:
        """End the controller or a node's daemon without a word; jobs of the node live on."""
        self._processes[name].kill()
        self._processes[name].wait()
        self._daemons[name].close()

    def kill_job(self, job: str) -> None:
        """End the processes of a job without a word, as the system does that is out of memory."""
        for process, env in self._processes_of_jobs():
            if env["SLURM_JOB_ID"] == job:
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def end_jobs(self, name: str | None = None) -> None:
        """End what jobs have left of processes on a node, or on all, as a power cut would."""
        for process in self.processes(name):
            with contextlib.suppress(psutil.Error):
                process.kill()

    def processes(self, name: str | None = None) -> list[psutil.Process]:
        """Return what works for jobs on a node, or on all; Slurm's own process of a job first."""
        found = list[psutil.Process]()
        for process, env in self._processes_of_jobs():
            if name in (None, env.get("SLURMD_NODENAME")):
                with contextlib.suppress(psutil.Error):
                    parent = process.parent()
                    if parent is not None and parent.name().startswith("slurmstepd"):
                        found.append(parent)
                    found.append(process)
        return found

    def daemon(self, name: str) -> int:
        """Return the process of the controller or of a node's daemon."""
        return self._processes[name].pid

    def _processes_of_jobs(self) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                env = process.environ()
                if env.get("SLURM_CONF") == self.env["SLURM_CONF"] and "SLURM_JOB_ID" in env:
                    yield process, env

    def start_all(self) -> None:
        """Start the controller, then the nodes."""
        for name in self._daemons:
            self.start(name)

    def stop(self) -> None:
        """End all daemons, the nodes first, and what jobs left behind."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.run("scancel", "--user", getpass.getuser())
        for name in reversed(self._daemons):
            self._daemons[name].close()
        self.end_jobs()
        eventually(self._without_groups)

    def _without_groups(self) -> bool:
        with contextlib.suppress(OSError):  # a process is not quite gone
            for folder in [*sorted(self._groups.rglob("*/"), reverse=True), self._groups]:
                folder.rmdir()
        return not self._groups.exists()

    def _own_groups(self) -> None:
        """Let jobs be in control groups of this cluster: others have jobs of the same names."""
        self._groups.mkdir()
        (self._place / "cgroup").mkdir()
        (self._place / "cgroup" / "memory").symlink_to(self._groups)
        (self._place / "cgroup.conf").write_text(LIMITS.format(place=self._place))

    def _configure(self) -> None:
        nodes = "\n".join(
            f"NodeName={name} NodeAddr=127.0.0.1 NodeHostname=localhost Port={self._ports[name]}"
            f" CPUs=2 RealMemory=4000{' Gres=gpu:1' if name == NODES[0] else ''}"
            for name in NODES
        )
        text = CONFIGURATION.format(
            place=self._place,
            user=getpass.getuser(),
            port=self._ports["slurmctld"],
            nodes=nodes,
            timeout=self._timeout,
            task="cgroup" if limits_memory() else "none",
        )
        (self._place / "slurm.conf").write_text(text)
        # Slurm counts what it has never opened.
        gpu = f"NodeName={NODES[0]} Name=gpu File=/dev/null\n"
        (self._place / "gres.conf").write_text(gpu)
        if limits_memory():
            self._own_groups()
        for folder in ("state", *(f"spool/{name}" for name in NODES)):
            (self._place / folder).mkdir(parents=True)

    def _takes_part(self, node: str) -> bool:
        # A node that does not answer any more has a star.
        return self.nodes()[node] in ("idle", "mixed", "allocated")

    def _controls(self) -> bool:
        command = ["scontrol", "ping"]
        done = subprocess.run(command, env={**os.environ, **self.env}, capture_output=True)
        return done.returncode == 0


@contextlib.contextmanager
def slurm(*, timeout: int = 30, named: bool = False) -> Generator[SlurmCluster]:
    """Run a cluster of idle nodes, which is gone at the end of the block.

    The parameters are those of `SlurmCluster`.

    Raises
    ------
    ServiceMissingError
        If a program of Slurm or munge is neither on the PATH nor in /usr/sbin.
    """
    for program in ("munged", "slurmctld", "slurmd", "sbatch"):
        if _find(program) is None:
            raise ServiceMissingError(f"no {program} here; install it with: {INSTALL}")
    # Short, for a socket's path may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="djslurm") as folder:
        place = Path(folder)
        with _munge(place):
            cluster = SlurmCluster(place, timeout=timeout, named=named)
            try:
                cluster.start_all()
                yield cluster
            finally:
                cluster.stop()


@contextlib.contextmanager
def _munge(place: Path) -> Generator[None]:
    """Run the daemon by which Slurm's programs know each other, with a key of its own."""
    key, socket = place / "munge.key", place / "munge.sock"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    # By force: it does not like temporary folders, which others may write.
    command = [_find("munged") or "munged", "--foreground", "--force", f"--socket={socket}"]
    command += [f"--key-file={key}", f"--pid-file={place / 'munge.pid'}"]
    command += [f"--log-file={place / 'munge.log'}", f"--seed-file={place / 'munge.seed'}"]
    with server(command, log=place / "munge.out", ready=socket.exists):
        yield


def _find(program: str) -> str | None:
    # Debian keeps servers in /usr/sbin, which is not on everybody's PATH.
    return shutil.which(program) or shutil.which(program, path="/usr/sbin")
