"""Where a study's files lie below the driver's root, and what its trials' folders are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["StudyFolder", "run_key", "run_of", "trial_key", "trial_keys", "trial_number"]

_RUN = "run-"


def trial_key(number: int) -> str:
    """Folder of a trial below ``trials/`` and ``ledger/``: ``00007``."""
    return f"{number:05d}"


def run_key(number: int, run: int, runs: int) -> str:
    """Folder of one of a trial's ``runs``: ``00007/run-2``, and that of the trial where it is the only one."""
    return f"{trial_key(number)}/{_RUN}{run}" if runs > 1 else trial_key(number)


def trial_keys(number: int, runs: int) -> tuple[str, ...]:
    """The folders of all runs of a trial."""
    return tuple(run_key(number, run, runs) for run in range(1, runs + 1))


def trial_number(key: str) -> int:
    """The trial that the folder ``key`` belongs to."""
    return int(key.split("/", 1)[0])


def run_of(key: str) -> int:
    """The run that the folder ``key`` belongs to, from 1."""
    _, _, run = key.partition(f"/{_RUN}")
    return int(run) if run else 1


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The driver's folder of one study."""

    root: Path

    @property
    def study(self) -> Path:
        """The study as it was frozen at the first run."""
        return self.root / "study.yaml"

    @property
    def site(self) -> Path:
        """The site as it was at the latest run; of several the first."""
        return self.root / "site.yaml"

    @property
    def sites(self) -> tuple[Path, ...]:
        """All sites of the latest run."""
        several = tuple(sorted((self.root / "sites").glob("*.yaml")))
        return several or ((self.site,) if self.site.is_file() else ())

    def site_called(self, name: str) -> Path:
        """Where the site ``name`` is kept if it is one of several."""
        return self.root / "sites" / f"{name}.yaml"

    def site_of(self, name: str) -> Path:
        """Where the site is kept that an attempt calls ``name``."""
        several = self.site_called(name)
        return several if several.is_file() else self.site

    @property
    def events(self) -> Path:
        """One JSON object a line, for people and plots."""
        return self.root / "events.jsonl"

    @property
    def log(self) -> Path:
        """What a driver without a terminal has to say."""
        return self.root / "driver.log"

    @property
    def provenance(self) -> Path:
        """Commit, packages, host, checksums."""
        return self.root / "provenance.json"

    @property
    def begun(self) -> bool:
        """Whether a driver has worked here: a folder with a study.yaml may also be where its author keeps it."""
        marks = (self.provenance, self.events, self.root / "snapshot.json", self.root / "study.db")
        return self.study.is_file() and any(mark.exists() for mark in marks)
