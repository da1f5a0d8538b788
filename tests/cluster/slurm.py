"""A real Slurm of two virtual nodes on this machine, on the loopback interface.

``python -m tests.cluster.slurm COMMAND …`` (as root) starts one, runs the command in it and stops
it; without a command it stays until Ctrl-C. ``slurmctld``, ``slurmd`` and ``munged`` are Debian's
slurm-wlm and munge. Jobs of Snakemake's plugin do not inherit SLURM_CONF, so the configuration has
to lie in /etc/slurm.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

CONFIGURATION = Path("/etc/slurm/slurm.conf")
OURS = "# of tests/cluster/slurm.py, process "
PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "setpriv")
GPU_LIST = CONFIGURATION.with_name("gres.conf")
FAKE_GPUS = ("/dev/null", "/dev/zero")  # of each node: Slurm asks for a file
NODES = {"n1": 17001, "n2": 17002}
CONTROL_PORT = 17000
CLUSTER = f"test-{os.getpid()}"  # what runs in its jobs has it as SLURM_CLUSTER_NAME
STARTS_WITHIN = 60.0  # seconds


class NoSlurmError(Exception):
    """Why none can be started here, in one line."""


def missing() -> str | None:
    """Why no Slurm can be started here, if so."""
    if os.getuid():
        return "needs root, to start Slurm's daemons"
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"needs {', '.join(absent)} (Debian: apt-get install slurm-wlm munge)"
    if CONFIGURATION.exists() and not _left_behind():
        return f"{CONFIGURATION} is there already: this machine has a Slurm of its own"
    return None


def _left_behind() -> bool:
    """Whether slurm.conf is that of a process of this module that was killed."""
    first = CONFIGURATION.read_text().partition("\n")[0]
    return first.startswith(OURS) and not psutil.pid_exists(int(first.removeprefix(OURS)))


@contextmanager
def running(cpus: int = 2, memory_mb: int = 4000) -> Iterator[None]:
    """Meanwhile ``sbatch`` and ``srun`` reach two idle nodes of so many CPUs each.

    Raises NoSlurmError where none can be started. Stops what it has started, and nothing else.
    """
    if reason := missing():
        raise NoSlurmError(reason)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
        folder.chmod(0o755)
        stack.enter_context(_configured(folder, cpus, memory_mb))
        stack.callback(_kill_left)
        munge = _munge(folder)
        stack.enter_context(_daemon(munge, folder / "munged.log"))
        _until(lambda: (folder / "munge.socket").exists(), "munged")
        stack.enter_context(_daemon(["slurmctld", "-D"], folder / "slurmctld.out"))
        for name in NODES:
            stack.enter_context(_daemon(["slurmd", "-D", "-N", name], folder / f"{name}.out"))
        stack.callback(_cancel_all)
        _until(lambda: states() == dict.fromkeys(NODES, "idle"), "Slurm's nodes")
        yield


def states() -> dict[str, str]:
    """Of the nodes, as sinfo names them."""
    words = ["sinfo", "--noheader", "--Node", "--format=%N %T"]
    listed = subprocess.run(words, capture_output=True, text=True).stdout
    return dict(line.split() for line in listed.splitlines())


@contextmanager
def down(node: str) -> Iterator[None]:
    """Meanwhile ``node`` takes no jobs; what ran there is killed."""
    words = ["scontrol", "update", f"nodename={node}"]
    subprocess.run([*words, "state=down", "reason=test"], check=True)
    try:
        yield
    finally:
        if states()[node].startswith("down"):  # its daemon may have come back by itself
            subprocess.run([*words, "state=resume"], check=True)


@contextmanager
def _configured(folder: Path, cpus: int, memory_mb: int) -> Iterator[None]:
    """slurm.conf is there, with the host's own name as the controller's."""
    host = os.uname().nodename
    lines = [
        f"{OURS}{os.getpid()}",
        f"ClusterName={CLUSTER}",
        "GresTypes=gpu",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={CONTROL_PORT}",
        "SlurmUser=root",
        "AuthType=auth/munge",
        f"AuthInfo=socket={folder}/munge.socket",
        "CredType=cred/munge",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "SwitchType=switch/none",
        "MpiDefault=none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "SlurmdParameters=config_overrides",
        "AccountingStorageType=accounting_storage/none",
        "JobAcctGatherType=jobacct_gather/none",
        "ReturnToService=2",
        "MinJobAge=600",
        "KillWait=30",
        "SchedulerParameters=batch_sched_delay=0,sched_interval=5,bf_interval=5",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool-%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/slurmd-%n.pid",
        f"SlurmctldLogFile={folder}/slurmctld.log",
        f"SlurmdLogFile={folder}/slurmd-%n.log",
    ]
    for name, port in NODES.items():
        lines.append(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} "
            f"RealMemory={memory_mb} Gres=gpu:fake:{len(FAKE_GPUS)} State=UNKNOWN"
        )
    names = ",".join(NODES)
    lines.append(f"PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP")
    CONFIGURATION.parent.mkdir(parents=True, exist_ok=True)
    CONFIGURATION.write_text("\n".join(lines) + "\n")
    gpus = [f"NodeName={names} Name=gpu Type=fake File={device}" for device in FAKE_GPUS]
    GPU_LIST.write_text("\n".join(gpus) + "\n")
    try:
        yield
    finally:
        CONFIGURATION.unlink()
        GPU_LIST.unlink()


def _munge(folder: Path) -> list[str]:
    """Return the command of a private munge daemon, with its own key and socket."""
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    names = {
        "key-file": key,
        "socket": folder / "munge.socket",
        "pid-file": folder / "munge.pid",
        "log-file": folder / "munge.log",
        "seed-file": folder / "munge.seed",
    }
    words = [f"--{option}={path}" for option, path in names.items()]
    return ["munged", "--foreground", "--force", *words]


@contextmanager
def _daemon(words: list[str], log: Path) -> Iterator[None]:
    # It ends with this process, however that ends.
    words = ["setpriv", "--pdeathsig", "TERM", *words]
    with log.open("w") as file:
        process = psutil.Popen(words, stdout=file, stderr=file, start_new_session=True)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()


def _cancel_all() -> None:
    """So that no job outlives its node's daemon."""
    subprocess.run(["scancel", "--signal=KILL", "--full", "--user=root"], capture_output=True)
    subprocess.run(["scancel", "--user=root"], capture_output=True)
    _until(lambda: not _jobs(), "the end of Slurm's jobs")


def _kill_left() -> None:
    """Kill what still runs of jobs that Slurm forgot when their node was set to down."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("SLURM_CLUSTER_NAME") == CLUSTER:
                process.kill()


def _jobs() -> str:
    words = ["squeue", "--noheader", "--states=PENDING,RUNNING,COMPLETING"]
    return subprocess.run(words, capture_output=True, text=True).stdout


def _until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {STARTS_WITHIN:g} s")
        time.sleep(0.2)


def main(words: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # stops Slurm, too
    try:
        with running():
            if words:
                return subprocess.run(words).returncode
            print("Slurm is running; Ctrl-C stops it", flush=True)
            with suppress(KeyboardInterrupt):
                signal.pause()
    except NoSlurmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
