"""A command or a mail when a study pauses or ends.

The message goes by the standard input and by environment variables, never through a shell. Whatever
becomes of it, the study is none the worse: a notifier that fails is told of, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import HeldByAnother, Paused, SurveyError, TooManyFailures
from orchestrator.store.atomic import read_json, write_json

if TYPE_CHECKING:
    from orchestrator.config.notify import Notify
    from orchestrator.store.record import StudyRecord

__all__ = ["Notifier"]

_FILE = "notified.json"
_PATIENCE = 60.0
_LONGEST = 8000  # characters of a message: an environment has its limits
_NEEDS = ("login", "room", "server")  # of "waiting" events: what a running driver waits for a person with
_PLACES_OF_SENDMAIL = ("/usr/sbin", "/usr/lib", "/usr/local/sbin")


class Notifier:
    """Tells somebody of one study.

    Parameters
    ----------
    notify : Notify or None
        How; None: not at all.
    root : Path
        The study's folder.
    on_trouble : callable
        Called with words where somebody could not be told.
    again : float
        Seconds for which the same thing is not told a second time.
    """

    def __init__(
        self,
        notify: Notify | None,
        root: Path,
        *,
        on_trouble: Callable[[str], None],
        again: float = 3600.0,
        patience: float = _PATIENCE,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._notify = notify
        self._root = root
        self._on_trouble = on_trouble
        self._again = again
        self._patience = patience
        self._now = now
        self._needed: set[str] = set()
        self._begun = False
        self._threads: list[threading.Thread] = []

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take note of a driver's event: it may wait for a person while it runs."""
        if event["event"] == "started":
            self._begun = True
        if event["event"] != "waiting":
            return
        for need in _NEEDS:
            if need in event and not event[need]:
                self._needed.discard(need)
            elif event.get(need) and need not in self._needed:
                self._needed.add(need)
                # The driver waits for nobody's mail program.
                words = str(event.get("message", ""))
                thread = threading.Thread(target=self.tell, args=("paused", words), name="notify", daemon=True)
                thread.start()
                self._threads.append(thread)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Tell of what ends a driver inside this context: a pause, too many failures, an error after its start."""
        try:
            yield
        except Paused as failure:
            self.tell("paused", failure.message, hint=failure.hint)
            raise
        except TooManyFailures as failure:
            self.tell("done", failure.message, hint=failure.hint)
            raise
        except HeldByAnother:
            raise  # the study goes on, driven by another
        except Exception as failure:
            if self._begun:
                words = failure.message if isinstance(failure, SurveyError) else f"{type(failure).__name__}: {failure}"
                self.tell("ended", words)
            raise
        finally:
            for thread in self._threads:
                thread.join(self._patience)

    def finished(self, record: StudyRecord, before: StudyRecord | None, *, terminated: bool) -> None:
        """Tell of a driver that has ended in order, if that is news.

        Parameters
        ----------
        before : StudyRecord or None
            The study when the driver began.
        terminated : bool
            Whether SIGTERM ended it: nobody may have meant that.
        """
        if record.state == "done" and (before is None or before.state != "done"):
            self.tell("done", record.message, record=record)
        elif terminated and record.state != "done":
            self.tell("interrupted", "SIGTERM ended the driver; jobs in flight run on", record=record)

    def tell(self, state: str, message: str, *, hint: str = "", record: StudyRecord | None = None) -> None:
        """Tell that the study is in ``state``; never raises."""
        if self._notify is None or not self._is_news(state, message):
            return
        subject = f"survey: {self._root.name} {'is done' if state == 'done' else f'is {state}'}"
        text = "\n".join(self._lines(subject, message, hint, record))[:_LONGEST] + "\n"
        try:
            if self._notify.command is not None:
                self._run(list(self._notify.command), text, state=state, message=message, subject=subject)
            else:
                self._run([_sendmail(), "-i", "-t"], self._mail(subject, text), state=state, message=message)
            write_json(self._root / _FILE, {"state": state, "message": message, "time": self._now()})
        except (OSError, ValueError, subprocess.SubprocessError, SurveyError) as failure:
            words = failure.message if isinstance(failure, SurveyError) else str(failure)
            self._on_trouble(f"nobody could be told that the study is {state}: {words}")

    def _is_news(self, state: str, message: str) -> bool:
        with contextlib.suppress(OSError):
            last = read_json(self._root / _FILE)
            if isinstance(last, dict) and (last.get("state"), last.get("message")) == (state, message):
                told = last.get("time")
                return not (isinstance(told, int | float) and 0.0 <= self._now() - told < self._again)
        return True

    def _lines(self, subject: str, message: str, hint: str, record: StudyRecord | None) -> Iterator[str]:
        yield subject
        if message:
            yield message
        if hint:
            yield hint
        if record is not None:
            counts = {word: sum(trial.state == word for trial in record.trials) for word in ("complete", "failed")}
            yield f"{counts['complete']} trials complete, {counts['failed']} failed, {record.planned} planned"
            if record.nothing_feasible:
                yield record.nothing_feasible
            if len(record.objectives) > 1 and record.front():
                yield f"front of {len(record.front())}, among them:"
            for trial in record.best():
                values = zip(record.objectives, trial.values or (), strict=False)
                yield f"best: trial {trial.number}, " + ", ".join(f"{name} = {value:.6g}" for name, value in values)
        yield f"record: {socket.gethostname()}:{self._root}"
        yield f"more: survey explain --study {self._root}"

    def _mail(self, subject: str, text: str) -> str:
        assert self._notify is not None
        mail = EmailMessage()
        mail["To"] = self._notify.mail
        mail["Subject"] = subject
        mail["Date"] = formatdate(self._now(), localtime=True)
        mail.set_content(text)
        return mail.as_string()

    def _run(self, command: list[str], text: str, **said: str) -> None:
        environment = {**os.environ, "SURVEY_STUDY": self._root.name, "SURVEY_ROOT": str(self._root)}
        for name, value in said.items():
            environment[f"SURVEY_{name.upper()}"] = value.replace("\0", "")[:_LONGEST]
        process = subprocess.Popen(
            command,
            cwd=self._root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            _, said_so = process.communicate(text.encode(), timeout=self._patience)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        if process.returncode:
            words = said_so.decode("utf-8", "replace").strip().splitlines()
            raise SurveyError(f"{command[0]} ended with code {process.returncode}{': ' + words[-1] if words else ''}")


def _sendmail() -> str:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_PLACES_OF_SENDMAIL))
    found = shutil.which("sendmail", path=path)
    if found is None:
        raise SurveyError("this machine has no sendmail; name a `command:` in place of `mail:`")
    return found
