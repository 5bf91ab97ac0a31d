"""An emulated cluster behind real commands: wrappers in a folder for PATH, and the keeper that answers them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator.errors import SurveyError
from orchestrator.simulate import commands
from orchestrator.simulate.batchjob import Rules
from orchestrator.simulate.dialects.base import Call
from orchestrator.simulate.faults import Fault
from orchestrator.simulate.flavours import flavour

__all__ = ["InstalledCluster", "install"]

_READY = 30.0


def install(
    folder: Path,
    *,
    kind: str = "slurm",
    rules: Rules | None = None,
    faults: Sequence[Fault] = (),
    seed: int = 0,
    delay_factor: float = 1.0,
) -> InstalledCluster:
    """Write the wrappers to ``folder/bin`` and the cluster's description to ``folder/state``.

    Parameters
    ----------
    kind : str
        A name in `orchestrator.simulate.flavours.FLAVOURS`.
    rules : Rules, optional
        In place of the flavour's own; a ``queue_wait`` cannot be handed to another process.
    delay_factor : float
        By what the delays of a server that is down are shortened.
    """
    made = flavour(kind)
    rules = rules or made.make_rules()
    if rules.queue_wait is not None:
        raise SurveyError("an emulated cluster behind commands takes no queue_wait: a function cannot be handed on")
    state, programs = folder / "state", folder / "bin"
    for path in (state, programs):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    description = {
        "flavour": kind,
        "rules": dataclasses.asdict(rules),
        "faults": [_plain(fault) for fault in faults],
        "seed": seed,
        "delay_factor": delay_factor,
    }
    dialect = made.dialect()
    down = {}
    for name in dialect.programs:
        reply = dialect.trouble("down", Call(program=name, words=("",)))
        down[name] = {**dataclasses.asdict(reply), "delay": reply.delay * delay_factor}
        wrapper = programs / name
        line = shlex.join([sys.executable, "-I", "-S", commands.__file__, str(state), name])
        wrapper.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
        wrapper.chmod(0o700)
    (state / "down.json").write_text(json.dumps(down))
    (state / "cluster.json").write_text(json.dumps(description))
    return InstalledCluster(programs, state)


def _plain(fault: Fault) -> Mapping[str, Any]:
    data = {name: getattr(fault, name) for name in ("command", "kind", "since", "until", "chance")}
    return {**data, "calls": None if fault.calls is None else sorted(fault.calls)}


class InstalledCluster:
    """A cluster on this machine; as a context manager its keeper runs inside.

    Attributes
    ----------
    bin : Path
        To be put first on PATH.
    """

    def __init__(self, programs: Path, state: Path) -> None:
        self.bin = programs
        self._state = state
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the keeper; jobs find the same commands on their PATH.

        Raises
        ------
        SurveyError
            If it does not come up.
        """
        environment = {**os.environ, "PATH": f"{self.bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        log = self._state / "keeper.log"
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.simulate.keeper", str(self._state)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
                start_new_session=True,
            )
        end = time.monotonic() + _READY
        while self.control("show") is None:
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise SurveyError(f"the keeper of the emulated cluster did not start: {log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the keeper and all its jobs; the commands then say that their server is down."""
        if self._process is None:
            return
        if self.control("stop") is None:
            self._process.terminate()
        try:
            self._process.wait(_READY)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        with contextlib.suppress(FileNotFoundError):
            (self._state / "socket").unlink()

    def control(self, verb: str, **arguments: Any) -> dict[str, Any] | None:
        """Ask the keeper for what no user can do (see `orchestrator.simulate.keeper`); None if it is not there."""
        return commands.ask(str(self._state), {"control": verb, **arguments})
