"""A Grid Engine of the tests' own on this machine: installed, started and stopped without an init system."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from debian_packages import CannotProvide, install
from gridengine_config import bootstrap, changed, files

__all__ = ["FOLDER", "CannotProvide", "GridEngineCluster"]

FOLDER = Path("/var/lib/survey-test-gridengine")

_PACKAGES = ("gridengine-master", "gridengine-exec", "gridengine-client")
_PACKAGED = Path("/var/lib/gridengine")
_CELL = "survey"
# Away from Grid Engine's own 6444 and 6445.
_QMASTER_PORT, _EXECD_PORT = 26444, 26445
_ADMIN = "sgeadmin"


class GridEngineCluster:
    """sge_qmaster and one sge_execd, a cell of their own in ``root``; the packages' own cell is left as it is."""

    def __init__(self, root: Path = FOLDER) -> None:
        self.root = root
        self._pids = {
            "sge_qmaster": root / "spool/qmaster/qmaster.pid",
            "sge_execd": root / "spool/execd/localhost/execd.pid",
        }

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return {
            "SGE_ROOT": str(self.root),
            "SGE_CELL": _CELL,
            "SGE_QMASTER_PORT": str(_QMASTER_PORT),
            "SGE_EXECD_PORT": str(_EXECD_PORT),
        }

    def up(self) -> None:
        """Install what is missing and start what is down.

        Raises
        ------
        CannotProvide
            If the machine has a Grid Engine that is not ours, or cannot have one.
        """
        self.refuse_foreign()
        self.root.mkdir(parents=True, exist_ok=True)
        install(_PACKAGES, self.root / "setup.log")
        self._make_cell()
        if self._process("sge_qmaster") is None:
            self._do("/usr/sbin/sge_qmaster", user=_ADMIN)
        self._wait("sge_qmaster", lambda: self.run("qconf", "-sconf").returncode == 0)
        self._configure()
        if self._process("sge_execd") is None:
            self._do("/usr/sbin/sge_execd")
        self._wait("the host", lambda: "lx-" in self.output("qstat", "-f"))

    def down(self) -> None:
        """Stop the daemons; jobs are deleted first, so that nothing of theirs stays."""
        if self._process("sge_qmaster") is not None:
            with contextlib.suppress(CannotProvide, subprocess.SubprocessError):
                self.empty()
        for name in ("sge_execd", "sge_qmaster"):
            if (process := self._process(name)) is not None:
                process.terminate()
                try:
                    process.wait(30)
                except psutil.TimeoutExpired:
                    process.kill()
            self._pids[name].unlink(missing_ok=True)

    def empty(self) -> None:
        """Delete all jobs."""
        self.run("qdel", "-f", "-u", "*")
        self._wait("the jobs' end", lambda: not self.output("qstat", "-u", "*"))

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a client command of this cluster."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environment, check=False)

    def output(self, *argv: str) -> str:
        """Output of a client command, which must succeed."""
        done = self.run(*argv)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def refuse_foreign(self) -> None:
        """Never touch a machine whose Grid Engine is another's."""
        if os.geteuid() != 0:
            raise CannotProvide("the tests start a Grid Engine of their own, for which they must run as root")
        named = os.environ.get("SGE_ROOT")
        if named is not None and Path(named) != self.root:
            raise CannotProvide(f"SGE_ROOT is {named}: the tests do not touch that cluster; unset it for theirs")
        # After an installation that nobody has set up the name of the master is empty.
        for master in _PACKAGED.glob("*/common/act_qmaster"):
            if master.read_text().strip():
                raise CannotProvide(f"this machine has a Grid Engine of its own ({master}); the tests do not touch it")
        own = [self._process(name) for name in self._pids]
        for process in psutil.process_iter(["name"]):
            if process.info["name"] in self._pids and process not in own:
                raise CannotProvide(f"a {process.info['name']} that is not the tests' runs here ({process.pid})")

    def _make_cell(self) -> None:
        common, database = self.root / _CELL / "common", self.root / "spool/db"
        if (database / "sge").exists():
            return
        for folder in (common, database, self.root / "spool/qmaster/job_scripts", self.root / "spool/execd"):
            folder.mkdir(parents=True, exist_ok=True)
        for name in ("bin", "lib", "util", "utilbin"):
            if not (self.root / name).is_symlink():
                (self.root / name).symlink_to(_PACKAGED / name)
        host = socket.gethostname()
        if subprocess.run(["getent", "hosts", host], capture_output=True, check=False).returncode:
            with Path("/etc/hosts").open("a") as hosts:
                hosts.write(f"127.0.0.1 {host}\n")
        (common / "bootstrap").write_text(bootstrap(self.root))
        (common / "act_qmaster").write_text("localhost\n")
        # Else the daemons' names of this machine are two, and access is denied.
        (common / "host_aliases").write_text(f"localhost {host}\n")
        self._do("chown", "-R", f"{_ADMIN}:{_ADMIN}", str(self.root))
        script = "/usr/share/gridengine/scripts/init_cluster"
        self._do(script, str(self.root), _CELL, str(database), _ADMIN, user=_ADMIN)

    def _configure(self) -> None:
        self._do("qconf", "-as", "localhost", user=_ADMIN)
        parts = {"cluster": ("-sconf", "-Mconf"), "scheduler": ("-ssconf", "-Msconf")}
        for what, (show, change) in parts.items():
            name = "global" if what == "cluster" else what  # -Mconf takes the host's name from the file's
            path = self.root / name
            path.write_text(changed(self.output("qconf", show), what, self.root))
            self.output("qconf", change, str(path))
        for option, text in files().items():
            path = self.root / f"added{option}"
            path.write_text(text)
            done = self.run("qconf", option, str(path))
            said = done.stdout + done.stderr
            assert " added " in said or "already exists" in said, said

    def _do(self, *argv: str, user: str | None = None, **variables: str) -> None:
        """Run a command that puts itself into the background, or ends; what it says is in ``setup.log``."""
        log = self.root / "setup.log"
        with log.open("a") as output:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self.environment, **variables},
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                timeout=900,
                check=False,
            )
        if done.returncode:
            raise CannotProvide(f"`{' '.join(argv)}` failed; see {log}")

    def _process(self, name: str) -> psutil.Process | None:
        """The running daemon: ours, by its pid file and its name."""
        try:
            process = psutil.Process(int(self._pids[name].read_text()))
            alive = process.name() == name and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, psutil.Error):
            return None
        return process if alive else None

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired, AssertionError):
                if ready():
                    return
            if time.monotonic() > end:
                raise CannotProvide(f"gave up waiting for {what}; see {self.root}")
            time.sleep(0.1)
