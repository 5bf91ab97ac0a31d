"""A Slurm of the tests' own on this machine: installed, started, disturbed and stopped without systemd."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from debian_packages import CannotProvide, install
from slurm_config import GPUS, NODES, Layout, Settings, host, write

__all__ = ["FOLDER", "CannotProvide", "Cluster", "Settings"]

FOLDER = Path("/var/lib/survey-test-slurm")

_PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client", "slurmdbd", "mariadb-server")
_FOREIGN_CONF = (Path("/etc/slurm/slurm.conf"), Path("/etc/slurm-llnl/slurm.conf"))
_MUNGE_SOCKET = Path("/run/munge/munge.socket.2")
_PATIENCE = 90.0


class Cluster:
    """slurmctld, slurmdbd with MariaDB, and two nodes; everything lies in ``root``."""

    def __init__(self, root: Path = FOLDER) -> None:
        self.layout = Layout(root)
        self.settings = Settings()

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs: all of Slurm's files are looked up beside SLURM_CONF."""
        return {"SLURM_CONF": str(self.layout.slurm_conf)}

    # Up and down

    def up(self, settings: Settings | None = None) -> None:
        """Install what is missing, start what is down; what runs as wished is left alone.

        Raises
        ------
        CannotProvide
            If the machine has a Slurm that is not ours, or cannot have one.
        """
        self.settings = settings or self.settings
        self.refuse_foreign()
        layout = self.layout
        for folder in (layout.conf, layout.log, layout.run, layout.state, layout.gpus):
            folder.mkdir(parents=True, exist_ok=True)
        for node in NODES:
            (layout.spool / node).mkdir(parents=True, exist_ok=True)
        install(_PACKAGES, layout.log / "apt.log")
        self._make_gpus()
        _make_own_name_known()
        if write(layout, self.settings):
            self._stop("slurmctld", *NODES, "slurmdbd")
        self._start_munge()
        if self.settings.accounting:
            self._start_accounting()
        for daemon in ("slurmctld", *NODES):
            self.start(daemon)
        self.wait_until_ready()

    def down(self) -> None:
        """Stop every daemon; jobs are cancelled first, so that nothing of theirs stays."""
        if self._process("slurmctld") is not None:
            with contextlib.suppress(CannotProvide, subprocess.SubprocessError):
                self.empty()
        self._stop("slurmctld", *NODES, "slurmdbd", "mariadbd", "munged")

    def empty(self) -> None:
        """End all jobs."""
        self.run("scancel", "--user=root", timeout=30)
        self._wait("the jobs' end", lambda: not self.output("squeue", "-h"), 30)

    # Disturbances

    def start(self, daemon: str) -> None:
        """Start ``slurmctld`` or the slurmd of a node, unless it runs."""
        if self._process(daemon) is None:
            self.layout.pid(daemon).unlink(missing_ok=True)
            self._daemon(*(["slurmctld"] if daemon == "slurmctld" else ["slurmd", "-N", daemon]))

    def stop(self, daemon: str) -> None:
        """Stop a daemon in the orderly way."""
        self._stop(daemon)

    def kill(self, daemon: str) -> None:
        """``kill -9`` a daemon."""
        process = self._process(daemon)
        assert process is not None, f"{daemon} does not run"
        process.kill()
        _wait_for_end(process, 10)

    def lose_node(self, node: str) -> None:
        """End a node as a power cut does: its slurmd, its steps and all that they run, with ``kill -9``."""
        slurmd = self._process(node)
        assert slurmd is not None, f"the slurmd of {node} does not run"
        jobs = self.output("squeue", "-h", "-w", node, "-o", "%A").split()
        _kill([slurmd, *slurmd.children(recursive=True), *_steps(jobs)])

    def kill_programs(self, job_id: str) -> None:
        """``kill -9`` all that a job runs, so that it ends without a word."""
        _kill([process for process in _steps([job_id]) if process.name() != "slurmstepd"])

    def wait_until_saved(self, since: float) -> None:
        """Wait until slurmctld has written its jobs to disk later than ``since``: killed before, it forgets them."""
        saved = self.layout.state / "job_state"
        self._wait("slurmctld to save its state", lambda: saved.exists() and saved.stat().st_mtime > since, 60)

    def wait_until_ready(self) -> None:
        """Wait until both nodes take jobs; those that Slurm has drained are given back to it, as an operator does."""
        self._wait("the nodes", self._ready, _PATIENCE)

    def give_back_nodes(self) -> None:
        """Give Slurm back what it has drained: a controller that was killed gives numbers of jobs that still run again."""
        for node in self.output("sinfo", "-h", "-N", "-p", "main", "-t", "drain", "-o", "%N").split():
            self.run("scontrol", "update", f"nodename={node}", "state=resume")

    # Commands

    def run(self, *argv: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a client command of this cluster, in its own folder: sbatch puts a job's output where it was called."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout, env=environment, cwd=self.layout.root, check=False
        )

    def output(self, *argv: str) -> str:
        """Output of a client command, which must succeed."""
        done = self.run(*argv)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
        return done.stdout.strip()

    # Parts

    def refuse_foreign(self) -> None:
        """Never touch a machine whose Slurm is another's."""
        if os.geteuid() != 0:
            raise CannotProvide("the tests start a Slurm of their own, for which they must run as root")
        for path in _FOREIGN_CONF:
            if path.exists():
                raise CannotProvide(f"this machine has a Slurm of its own ({path}); the tests do not touch it")
        named = os.environ.get("SLURM_CONF")
        if named is not None and Path(named) != self.layout.slurm_conf:
            raise CannotProvide(
                f"SLURM_CONF is {named}: the tests do not touch that cluster; unset it to let them start theirs"
            )
        own = self._process("slurmctld")
        for process in psutil.process_iter(["name"]):
            if process.info["name"] == "slurmctld" and process != own and process.status() != psutil.STATUS_ZOMBIE:
                raise CannotProvide(
                    f"a slurmctld that is not the tests' runs here (process {process.pid}); they do not touch it"
                )

    def _make_gpus(self) -> None:
        # slurmd takes character devices only; the number of a GPU is that in its file's name.
        for number in range(GPUS):
            path = self.layout.gpus / f"nvidia{number}"
            if not path.exists():
                try:
                    os.mknod(path, 0o666 | stat.S_IFCHR, os.stat("/dev/null").st_rdev)
                except PermissionError as error:
                    raise CannotProvide(
                        "this container may not make device files, which stand for the GPUs (CAP_MKNOD)"
                    ) from error

    def _start_munge(self) -> None:
        # slurmdbd's clients know munge's default socket only; a munged that answers there is good, whosever it is.
        if _answers("munge", "-n"):
            return
        _MUNGE_SOCKET.parent.mkdir(mode=0o755, exist_ok=True)
        folder = self.layout.root / "munge"
        folder.mkdir(mode=0o700, exist_ok=True)
        key = folder / "munge.key"
        if not key.exists():
            key.touch(0o600)
            key.write_bytes(os.urandom(1024))
        self._daemon(
            "munged",
            "--force",
            f"--key-file={key}",
            f"--pid-file={self.layout.pid('munged')}",
            f"--seed-file={folder}/seed",
            f"--log-file={self.layout.log}/munged.log",
        )
        self._wait("munged", lambda: _answers("munge", "-n"), 15)

    def _start_accounting(self) -> None:
        layout = self.layout
        client = ("mariadb", f"--defaults-file={layout.database_conf}", "-e", "select 1")
        if not (layout.database / "mysql").exists():
            shutil.rmtree(layout.database, ignore_errors=True)
            self._daemon(
                "mariadb-install-db",
                "--no-defaults",
                "--user=root",
                f"--datadir={layout.database}",
                "--auth-root-authentication-method=socket",
                "--skip-test-db",
            )
        if self._process("mariadbd") is None:
            self._daemon("setsid", "--fork", "mariadbd", f"--defaults-file={layout.database_conf}")
        self._wait("mariadbd", lambda: _answers(*client), _PATIENCE)
        if self._process("slurmdbd") is None:
            layout.pid("slurmdbd").unlink(missing_ok=True)
            # slurmdbd has no option for the socket; libmariadb has this variable.
            self._daemon("slurmdbd", MYSQL_UNIX_PORT=str(layout.socket))
        self._wait("slurmdbd", lambda: self.run("sacctmgr", "-n", "list", "cluster").returncode == 0, _PATIENCE)
        if not self.output("sacctmgr", "-n", "-P", "list", "cluster"):
            self.output("sacctmgr", "-i", "add", "cluster", "survey")

    def _daemon(self, *argv: str, **variables: str) -> None:
        """Run a command that puts itself into the background, or ends."""
        with (self.layout.log / f"{argv[0]}.out").open("a") as output:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self.environment, **variables},
                timeout=120,
                check=False,
            )
        if done.returncode:
            raise CannotProvide(f"`{' '.join(argv)}` failed; see {self.layout.log}")

    def _ready(self) -> bool:
        self.give_back_nodes()
        return len(self._usable()) == len(NODES)

    def _usable(self) -> set[str]:
        return set(self.output("sinfo", "-h", "-N", "-p", "main", "-t", "idle,alloc,mix", "-o", "%N").split())

    def _stop(self, *daemons: str) -> None:
        for daemon in daemons:
            if (process := self._process(daemon)) is not None:
                process.terminate()
                if not _wait_for_end(process, 30):
                    process.kill()
                    _wait_for_end(process, 10)
            self.layout.pid(daemon).unlink(missing_ok=True)

    def _process(self, daemon: str) -> psutil.Process | None:
        """The running process of a daemon: ours, by its pid file and its name."""
        try:
            process = psutil.Process(int(self.layout.pid(daemon).read_text()))
            name = "slurmd" if daemon in NODES else daemon
            alive = process.name() == name and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, psutil.Error):
            return None
        return process if alive else None

    def _wait(self, what: str, ready: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired, AssertionError):
                if ready():
                    return
            if time.monotonic() > end:
                raise CannotProvide(f"gave up waiting for {what}; see {self.layout.log}")
            time.sleep(0.1)


def _steps(jobs: Sequence[str]) -> list[psutil.Process]:
    """Find the slurmstepd of each job, and all that it runs."""
    found = []
    for step in psutil.process_iter(["cmdline"]):
        # Its title is "slurmstepd: [7.batch]"; it is no child of its slurmd.
        title = " ".join(step.info["cmdline"] or ())
        if title.startswith("slurmstepd: [") and title.partition("[")[2].partition(".")[0] in jobs:
            found += [step, *step.children(recursive=True)]
    return found


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    for process in processes:
        _wait_for_end(process, 10)


def _make_own_name_known() -> None:
    """Slurm's daemons look their machine up by name; a container's often leads nowhere."""
    if not _answers("getent", "hosts", host()):
        with Path("/etc/hosts").open("a") as file:
            file.write(f"127.0.0.1 {host()}\n")


def _answers(*argv: str) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, timeout=10, check=False).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


def _wait_for_end(process: psutil.Process, seconds: float) -> bool:
    """Wait for the end of a process that need not be our child; one that nobody has reaped has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False
