"""What a site behind SSH costs: a study over SSH to this machine beside the same study driven on it, on one Slurm.

Each round drives a study of sleeping trials three times: by the local driver, through OpenSSH and through paramiko.
Printed for each: the makespan over the local driver's of the same round, and the commands that the login node was asked
to run (execs, by its sshd's own log): one for each look at the jobs, one for each submit, those of the beginning (the
greeting, the library), and what else there was (a last one removes artefacts that are not kept).

    python benchmarks/remote.py [--trials 32] [--seconds 20] [--slots 8] [--rounds 3] [--look 1] [--folder DIR]

It needs Slurm's commands, sshd and ssh, and a folder that the compute nodes see (--folder; the current one if not given).
The sshd is its own: own port, own keys, for this account alone.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KINDS = ("local", "openssh", "paramiko")

# A trial takes as long whoever drives it; trials differ by up to a quarter, so that slots fall free one by one.
_PROGRAM = """#!/bin/sh
hundredths=$(( $1 * (75 + SURVEY_TRIAL * 37 % 51) ))
sleep "$((hundredths / 100)).$(printf %02d $((hundredths % 100)))"
echo '{"metrics": {"loss": 0.5}}' > "$SURVEY_RESULT.part" && mv "$SURVEY_RESULT.part" "$SURVEY_RESULT"
"""


# --- one drive, in a process of its own ---------------------------------------------------------------------------


def drive(site_file: Path, study_file: Path) -> dict[str, float]:
    """Run the study to its end; seconds from its start to its end, and what its transport was asked for."""
    from orchestrator.clock import SystemClock
    from orchestrator.config.site import load_site
    from orchestrator.config.study import Study
    from orchestrator.search.driver import StudyDriver
    from orchestrator.transports.registry import make_transport

    site = load_site(site_file)
    transport = make_transport(site, SystemClock())
    calls: Counter[str] = Counter()
    for name in ("look", "put_and_run"):
        if (method := getattr(transport, name, None)) is not None:
            setattr(transport, name, _counted(method, name, calls))
    found: dict[str, float] = {}

    def listen(event: Any) -> None:
        if event["event"] == "started":
            found["begin"], found["first"] = time.perf_counter(), getattr(transport, "requests", 0)

    folder = study_file.parent
    driver = StudyDriver(
        Study.load(study_file), site, folder / "runs", origin=folder, transport=transport, on_event=listen
    )
    record = asyncio.run(driver.run())
    found["makespan"] = time.perf_counter() - found["begin"]
    found["complete"] = sum(trial.state == "complete" for trial in record.trials)
    return found | {"looks": calls["look"], "submits": calls["put_and_run"] - calls["run"]}


def _counted(method: Callable[..., Awaitable[Any]], name: str, calls: Counter[str]) -> Callable[..., Awaitable[Any]]:
    async def call(*words: Any, **keys: Any) -> Any:
        calls[name] += 1
        if name == "put_and_run" and not words[0]:
            calls["run"] += 1  # a command alone: no job's files go with it
        return await method(*words, **keys)

    return call


# --- the login node -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoginNode:
    """An sshd on this machine."""

    folder: Path
    port: int

    @property
    def execs(self) -> int:
        """Commands it was asked to run so far."""
        return (self.folder / "log").read_text().count("Starting session: command")


@contextmanager
def login_node(folder: Path) -> Iterator[LoginNode]:
    """Start an sshd whose sessions see this process's Slurm."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        sys.exit("there is no sshd here: install openssh-server")
    if os.getuid() == 0:
        os.makedirs("/run/sshd", 0o755, exist_ok=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        node = LoginNode(folder, int(probe.getsockname()[1]))
    seen = [f'"{name}={os.environ[name]}"' for name in ("PATH", "SLURM_CONF") if name in os.environ]
    key = (folder / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{node.port} {key[0]} {key[1]}\n")
    (folder / "ssh_config").write_text(f"Host *\n  UserKnownHostsFile {folder}/known_hosts\n  IdentitiesOnly yes\n")
    (folder / "sshd_config").write_text(
        f"Port {node.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/user.pub\nUsePAM no\nPasswordAuthentication no\nLogLevel VERBOSE\n"
        f"SetEnv {' '.join(seen)}\n"
    )
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "sshd_config")], stdout=log, stderr=log)
    try:
        while "Server listening" not in (folder / "log").read_text():
            if server.poll() is not None:
                sys.exit(f"sshd ended: {(folder / 'log').read_text()}")
            time.sleep(0.05)
        yield node
    finally:
        end = ["ssh", "-F", str(folder / "ssh_config"), "-S", str(folder / "master"), "-O", "exit", "127.0.0.1"]
        subprocess.run(end, capture_output=True, check=False)
        server.terminate()
        server.wait()


# --- rounds -------------------------------------------------------------------------------------------------------


def write(folder: Path, kind: str, node: LoginNode, options: argparse.Namespace) -> tuple[Path, Path]:
    """Write the site and the study of one drive."""
    import yaml

    (folder / "program.sh").write_text(_PROGRAM)
    transport: dict[str, object] = {"kind": kind}
    if kind != "local":
        transport |= {"host": "127.0.0.1", "port": node.port, "user": getpass.getuser(), "python": sys.executable}
        transport |= {"identity_file": str(node.folder / "user"), "config_file": str(node.folder / "ssh_config")}
    if kind == "openssh":
        transport["control_path"] = str(node.folder / "master")
    site = {
        "schema_version": 1,
        "name": "benchmark",
        "extends": "slurm",
        "python": sys.executable,
        "work_root": str(folder / "work"),
        "transport": transport,
        "poll": {"look": options.look, "query_min": 10, "query_max": 60},
        "limits": {"submits_per_minute": 6000, "queries_per_minute": 30},
    }
    study = {
        "schema_version": 1,
        "name": "far",
        "objective": {"metric": "loss", "direction": "minimize"},
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        "sampler": {"name": "random", "seed": 1},
        "trials": options.trials,
        "parallel": options.slots,
        "command": ["sh", "program.sh", str(options.seconds)],
        "batch": {"array": False},
    }
    for name, data in (("site", site), ("study", study)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(data))
    return folder / "site.yaml", folder / "study.yaml"


def measure(kind: str, folder: Path, node: LoginNode, options: argparse.Namespace) -> dict[str, float]:
    """Drive the study once."""
    folder.mkdir(parents=True)
    before = node.execs
    argv = [sys.executable, str(Path(__file__).resolve()), "--drive", *map(str, write(folder, kind, node, options))]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{kind}: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if found["complete"] != options.trials:
        sys.exit(f"{kind}: {found['complete']} of {options.trials} trials are complete")
    execs = node.execs - before
    return found | {"execs": execs, "else": execs - found["first"] - found["looks"] - found["submits"]}


def report(rounds: Sequence[dict[str, dict[str, float]]], options: argparse.Namespace) -> None:
    """Print the median of each figure over the rounds."""
    ideal = options.trials * options.seconds / options.slots
    print(f"{'':9} {'makespan':>9} {'/ideal':>7} {'/local':>7} {'of rounds':>13} {'execs':>6} {'looks':>6} {'submits':>8} {'begin':>6} {'else':>5}")  # fmt: skip
    for kind in options.only:
        here = [found[kind] for found in rounds]
        seconds = statistics.median(found["makespan"] for found in here)
        line = f"{kind:9} {seconds:9.1f} {seconds / ideal:7.3f}"
        if kind != "local" and "local" in options.only:
            ratios = [found[kind]["makespan"] / found["local"]["makespan"] for found in rounds]
            line += f" {statistics.median(ratios):7.3f} {min(ratios):6.3f}-{max(ratios):.3f}"
        if kind != "local":
            names = ("execs", "looks", "submits", "first", "else")
            execs, looks, submits, first, rest = (statistics.median(found[name] for found in here) for name in names)
            line += f" {execs:6.0f} {looks:6.0f} {submits:8.0f} {first:6.0f} {rest:5.0f}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=20, help="How long a trial takes, give or take a quarter.")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--look", type=float, default=1.0, help="Seconds between looks at the jobs.")
    parser.add_argument("--only", nargs="+", choices=_KINDS, default=list(_KINDS))
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    parser.add_argument("--drive", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        print(json.dumps(drive(*options.drive)))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server ends with us
    if shutil.which("sbatch") is None:
        sys.exit("there is no sbatch here: this benchmark runs on a machine with Slurm")
    print(f"{options.trials} trials of about {options.seconds} s in {options.slots} slots, {options.rounds} rounds")
    rounds = []
    # The socket's path must be short; the studies' files must be seen by the compute nodes.
    with (
        tempfile.TemporaryDirectory(prefix="survey-") as short,
        tempfile.TemporaryDirectory(dir=options.folder, prefix="remote-") as folder,
        login_node(Path(short)) as node,
    ):
        for number in range(options.rounds):
            found = {kind: measure(kind, Path(folder) / f"{number}-{kind}", node, options) for kind in options.only}
            shown = ", ".join(f"{kind} {found[kind]['makespan']:.1f} s" for kind in options.only)
            print(f"round {number + 1}: {shown}; load {os.getloadavg()[0]:.1f}", flush=True)
            rounds.append(found)
    report(rounds, options)


if __name__ == "__main__":
    main()
