"""A real Slurm of one node, private and short-lived, for tests: no systemd, no cgroups, no root.

Needs Debian's slurmctld, slurmd, slurm-client and munge (``make cluster-packages``). By hand:

    python tests/helpers/slurm.py start FOLDER     starts it and prints two export lines for the shell that is to use it
    python tests/helpers/slurm.py stop FOLDER      ends its jobs and its three daemons

Everything lies in FOLDER, on ports of its own; whatever Slurm the machine has otherwise is neither used nor touched.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "munged": "munge",
    "sbatch": "slurm-client",
    "srun": "slurm-client",
    "scontrol": "slurm-client",
    "sinfo": "slurm-client",
}
# The daemons in the order in which they start, by the names of their pid files.
DAEMONS = ("munged", "slurmctld", "slurmd")
_PATIENCE_SECONDS = 30.0
# Debian keeps daemons where only root looks.
_SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

# No accounting, no cgroups, no binding of tasks to cores: each needs a service or a right that a test machine may lack.
# The schedulers' pauses are as short as they can be. An unknown key here would break every client command.
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
# Memory is sampled every second, and a job that takes more than it asked for is ended.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
KillWait=2
MinJobAge=300
JobRequeue=1
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 {size} Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""

# submitit asks sacct for the states of jobs, and waits for ever on a killed one if it gets no answer. The real sacct
# has none without a database, so this one answers that question from what the controller remembers.
_SACCT = """\
#!/bin/sh
echo "JobID|State|NodeList"
scontrol --oneliner show job | awk '{
    split("", job)
    for (i = 1; i <= NF; i++) { at = index($i, "="); job[substr($i, 1, at - 1)] = substr($i, at + 1) }
    task = job["ArrayTaskId"]
    id = task == "" ? job["JobId"] : job["ArrayJobId"] "_" (task ~ /^[0-9]+$/ ? task : "[" task "]")
    if (id != "") print id "|" job["JobState"] "|" job["NodeList"]
}'
"""


class Unavailable(RuntimeError):
    """Slurm can't be had here; the message says why."""


def start(folder: Path) -> dict[str, str]:
    """Start the daemons in an empty folder, and wait until the node takes jobs.

    Returns:
        The variables that lead a process to this Slurm: SLURM_CONF and PATH.

    Raises:
        Unavailable: a package isn't installed, or a daemon doesn't start.
    """
    require_programs()
    folder = folder.resolve()
    for name in ("munge", "state", "spool", "bin"):
        (folder / name).mkdir(parents=True)
    # munge's clients must be able to reach its socket, and it insists that others could, too.
    for reached in (folder, folder / "munge"):
        reached.chmod(0o711)
    _write_files(folder)
    variables = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder / 'bin'}{os.pathsep}{_SEARCHED}"}
    environment = {**os.environ, **variables}
    munge = folder / "munge"
    munge_files = ("key-file=key", "socket=socket", "log-file=log", "seed-file=seed")
    try:
        _launch(
            "munged",
            *(f"--{option}={munge / name}" for option, _, name in (text.partition("=") for text in munge_files)),
            f"--pid-file={folder / 'munged.pid'}",
            environment=environment,
        )
        _wait_for(lambda: (munge / "socket").exists(), "munged", munge / "log")
        _launch("slurmctld", "-c", environment=environment)
        _wait_for((folder / "slurmctld.pid").exists, "slurmctld", folder / "slurmctld.log")
        _launch("slurmd", "-c", environment=environment)
        _wait_for(lambda: _query(environment, "sinfo", "-h", "-o", "%t") == "idle", "slurmd", folder / "slurmd.log")
    except BaseException:
        stop(folder)
        raise
    return variables


def stop(folder: Path) -> None:
    """End the jobs and the daemons of ``start``; what isn't there any more is passed over."""
    folder = folder.resolve()
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": _SEARCHED}
    if _pid(folder, "slurmctld") and _pid(folder, "slurmd"):
        # submitit's jobs ignore SIGTERM; those that wait must not start when the others are gone.
        _query(environment, "scancel", "--user", str(os.getuid()), "--state", "PENDING")
        _query(environment, "scancel", "--user", str(os.getuid()), "--signal", "KILL", "--full")
        _query(environment, "scancel", "--user", str(os.getuid()))
        with contextlib.suppress(Unavailable):
            _wait_for(lambda: not _query(environment, "squeue", "-h"), "squeue", folder / "slurmctld.log")
    for name in reversed(DAEMONS):
        pid = _pid(folder, name)
        if pid is None:
            continue
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while _pid(folder, name) is not None:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.02)


@contextlib.contextmanager
def stopped_at_the_end(folder: Path) -> Iterator[None]:
    """``stop`` at the end of the block, and also if this process should die of SIGKILL before."""
    # The guard reads a pipe that nobody writes to, and which closes when this process ends, however it ends.
    guard = subprocess.Popen([sys.executable, __file__, "guard", str(folder)], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        with guard:  # closes the pipe and waits
            pass


def require_programs() -> None:
    """Raises:
    Unavailable: some of the programs aren't installed.
    """
    missing = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program, path=_SEARCHED)})
    if missing:
        raise Unavailable(
            f"Slurm isn't installed. It takes Debian's packages {', '.join(missing)}; make cluster-packages installs "
            "them for root, or with sudo."
        )


def _write_files(folder: Path) -> None:
    described = subprocess.run(
        ["slurmd", "-C"], capture_output=True, text=True, env={**os.environ, "PATH": _SEARCHED}
    ).stdout
    size = " ".join(re.findall(r"\b(?:CPUs|RealMemory)=\d+", described))
    if not size:
        raise Unavailable("slurmd -C doesn't tell how large this machine is.")
    controller_port, node_port = _free_ports(2)
    (folder / "slurm.conf").write_text(
        _CONFIGURATION.format(
            folder=folder,
            host=socket.gethostname().partition(".")[0],
            user=str(os.getuid()),
            controller_port=controller_port,
            node_port=node_port,
            size=size,
        )
    )
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")  # one to be counted, not one to compute on
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    stand_in = folder / "bin" / "sacct"
    stand_in.write_text(_SACCT)
    stand_in.chmod(0o755)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _launch(program: str, *arguments: str, environment: dict[str, str]) -> None:
    # A daemon keeps what it inherits: a pipe for its output would never be at its end.
    log = Path(environment["SLURM_CONF"]).with_name(f"{program}.out")
    with open(log, "w") as out:
        done = subprocess.run([program, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    if done.returncode != 0:
        raise Unavailable(f"{program} doesn't start here: {_end_of(log)}")


def _wait_for(condition: Callable[[], bool], program: str, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise Unavailable(f"{program} isn't ready after {_PATIENCE_SECONDS:.0f} s: {_end_of(log)}")
        time.sleep(0.05)


def _query(environment: dict[str, str], *command: str) -> str:
    """What a client command prints; nothing if it fails."""
    try:
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30).stdout.strip()
    except subprocess.TimeoutExpired:
        return ""


def _pid(folder: Path, name: str) -> int | None:
    """Process id of a daemon, if it lives. Its command line tells it from another process that has its number now."""
    try:
        pid = int((folder / f"{name}.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if name.encode() in command else None


def _end_of(log: Path) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    return " / ".join(text.splitlines()[-3:]) or "it says nothing"


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["start", "stop", "guard"], metavar="start|stop")
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    try:
        if asked.command == "start":
            for name, value in start(asked.folder).items():
                print(f'export {name}="{value}"')
        elif asked.command == "stop":
            stop(asked.folder)
        else:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches it, too
            sys.stdin.buffer.read()
            stop(asked.folder)
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(_main())
