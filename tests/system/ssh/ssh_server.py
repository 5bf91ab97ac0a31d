"""A real sshd on this machine for the tests: own port, own host key, own user key; nothing of the machine's is changed."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
from debian_packages import CannotProvide, install

__all__ = ["Account", "Sshd", "free_port", "lock_key", "make_key", "provide"]


def provide(log: Path) -> None:
    """Install sshd, ssh and csh where they are missing.

    Raises
    ------
    CannotProvide
        If they cannot be had here.
    """
    programs = {"/usr/sbin/sshd": "openssh-server", "csh": "tcsh", "ssh": "openssh-client"}
    install([package for program, package in programs.items() if shutil.which(program) is None], log)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_key(path: Path) -> str:
    """Make a key pair and return its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text().strip()


def lock_key(path: Path, passphrase: str) -> None:
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", passphrase, "-f", str(path)], check=True)


class Sshd:
    """One server; `stop`, `start` and `cut` are what a bad day does to it."""

    def __init__(self, folder: Path, authorized: str, *, extra: Iterable[str] = ()) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        os.makedirs("/run/sshd", 0o755, exist_ok=True)
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.host_public = make_key(folder / "host_key")
        # Root's only way in, and read by root alone; the folders above are a test's own.
        (folder / "authorized_keys").write_text(authorized + "\n")
        self.config = folder / "sshd_config"
        self._extra = list(extra)

    @property
    def known_hosts_line(self) -> str:
        return f"[127.0.0.1]:{self.port} {' '.join(self.host_public.split()[:2])}\n"

    @property
    def fingerprint(self) -> str:
        done = subprocess.run(
            ["ssh-keygen", "-lf", str(self.folder / "host_key.pub")], capture_output=True, text=True, check=True
        )
        return done.stdout.split()[1]

    def change_host_key(self) -> None:
        for name in ("host_key", "host_key.pub"):
            (self.folder / name).unlink()
        self.host_public = make_key(self.folder / "host_key")

    def start(self) -> None:
        self.config.write_text(
            "\n".join(
                (
                    f"Port {self.port}",
                    "ListenAddress 127.0.0.1",
                    f"HostKey {self.folder}/host_key",
                    f"PidFile {self.folder}/pid",
                    f"AuthorizedKeysFile {self.folder}/authorized_keys .ssh/authorized_keys",
                    "LogLevel VERBOSE",
                    "StrictModes no",
                    "PermitRootLogin prohibit-password",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "UsePAM no",
                    "MaxStartups 100",
                    *self._extra,
                    "",
                )
            )
        )
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.config)], stdout=log, stderr=log
            )
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                if probe.recv(3) == b"SSH":
                    return
            if self._process.poll() is not None or time.monotonic() > end:
                raise CannotProvide((self.folder / "log").read_text()[-500:])

    def cut(self) -> None:
        """Kill the servers of all connections, as a login node does that is switched off; none is told."""
        assert self._process is not None
        for child in psutil.Process(self._process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def stop(self) -> None:
        """Take no more connections, and end those that are there."""
        if self._process is None:
            return
        self.cut()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None


class Account:
    """An account of this machine for the time of a test."""

    def __init__(self, name: str, shell: str, authorized: str) -> None:
        self.name = name
        self.remove()
        subprocess.run(["useradd", "-m", "-s", shell, name], check=True, capture_output=True)
        subprocess.run(["usermod", "-p", "*", name], check=True, capture_output=True)  # useradd leaves it locked
        keys = self.home / ".ssh" / "authorized_keys"
        keys.parent.mkdir(mode=0o755)
        keys.write_text(authorized)

    @property
    def home(self) -> Path:
        return Path(pwd.getpwnam(self.name).pw_dir)

    def remove(self) -> None:
        subprocess.run(["userdel", "-r", "-f", self.name], check=False, capture_output=True)
