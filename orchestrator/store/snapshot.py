"""What readers read: a snapshot that the driver publishes by rename, or the database when nobody drives.

Reading takes no lock, opens no live database and asks no scheduler.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.errors import SurveyError, UsageError
from orchestrator.store.atomic import read_in_words, write_bytes
from orchestrator.store.database import DATABASE
from orchestrator.store.lease import DRIVER, read_holder
from orchestrator.store.record import SNAPSHOT_VERSION, StudyRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["SNAPSHOT", "publish", "published", "read", "studies"]

SNAPSHOT = "snapshot.json"
_MARKS = ("study.yaml", DATABASE, SNAPSHOT, DRIVER)


def publish(root: Path, record: StudyRecord) -> None:
    """Write ``snapshot.json`` whole.

    Raises
    ------
    Paused, UsageError, SurveyError
        As `orchestrator.store.atomic.write_bytes`.
    """
    # `StudyRecord.to_json` copies every trial in depth; what is written at once need not be copied.
    data = {"snapshot_version": SNAPSHOT_VERSION, **_shallow(record)}
    data["trials"] = [_shallow(trial) for trial in record.trials]
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), default=_plain)
    write_bytes(root / SNAPSHOT, text.encode())


def read(
    root: Path,
    loader: Callable[[Path], StudyRecord] | None = None,
    *,
    now: Callable[[], float] = time.time,
) -> StudyRecord:
    """Read the study in ``root`` as it stands.

    Parameters
    ----------
    loader : callable, optional
        Makes the record from the database, read-only. Asked only if no driver is alive and the
        database is newer than the snapshot, or there is no snapshot.
    now : callable
        Seconds since the epoch.

    Returns
    -------
    StudyRecord
        Its ``state`` is ``interrupted`` where the last driver went away while it ran.

    Raises
    ------
    UsageError
        There is no study in ``root``.
    SurveyError
        There is one, but neither a snapshot nor a database to read.
    """
    if not any((root / mark).exists() for mark in _MARKS):
        raise UsageError(f"there is no study in {root}", hint=_suggestion(root))
    _, alive = read_holder(root, now=now())
    snapshot = published(root)
    if alive:
        if snapshot is None:
            raise SurveyError(f"the driver of {root} is just starting", hint="try again in a moment")
        return snapshot
    record = snapshot
    if loader is not None and (snapshot is None or _modified(root / DATABASE) > _modified(root / SNAPSHOT)):
        try:
            record = loader(root)
        except SurveyError:
            if snapshot is None:
                raise
    if record is None:
        raise SurveyError(f"the study in {root} has not been run yet", hint=f"survey run {root / 'study.yaml'}")
    if record.state == "running":
        record = dataclasses.replace(record, state="interrupted")
    return record


def studies(root: Path) -> tuple[Path, ...]:
    """List the folders of studies in ``root``, itself included, sorted."""
    try:
        candidates = [root, *sorted(each for each in root.iterdir() if each.is_dir())]
    except OSError:
        return ()
    return tuple(each for each in candidates if any((each / mark).exists() for mark in _MARKS))


def _suggestion(root: Path) -> str:
    here = [str(each) for each in studies(root)]
    if here:
        return f"studies in it: {', '.join(here[:5])}"
    beside = {each.name: str(each) for each in studies(root.parent)}
    close = difflib.get_close_matches(root.name, beside, n=1)
    if close:
        return f"did you mean {beside[close[0]]}?"
    if beside:
        return f"studies beside it: {', '.join(list(beside.values())[:5])}"
    return "`survey run study.yaml` makes one"


def published(root: Path) -> StudyRecord | None:
    """Read the last snapshot, however old it is; None if there is none of this version of the program."""
    data = read_in_words(root / SNAPSHOT)
    if data is None:
        return None
    try:
        return StudyRecord.from_json(data)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1


def _shallow(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value):
        return _shallow(value)
    raise TypeError(f"{type(value).__name__} is not plain data")
