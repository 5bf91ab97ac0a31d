"""Where a training keeps its state between the attempts of a trial, as arrays and JSON: no framework is needed here.

Outside a survey there is no such place, and nothing is kept: two trainings by hand from one folder
must not take each other's state for their own.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator import trial

__all__ = ["Checkpoints", "State", "numpy_states", "plain", "random_state", "set_random_state"]

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A training after ``step`` epochs.

    Attributes
    ----------
    arrays : mapping
        Numbers by name; kept bit by bit.
    facts : mapping
        All else, as JSON has it.
    """

    step: int
    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one training.

    Parameters
    ----------
    identity : mapping
        What makes it this training (hyperparameters, seed, data), as JSON. A checkpoint with another
        identity is not taken up.
    every : float
        Seconds between two checkpoints, but for the one before a stop: a short training writes none.
    keep : int
        How many stay.
    folder : str, optional
        Where; the trial's own folder unless it is given, and outside a survey nowhere.
    """

    def __init__(
        self, identity: Mapping[str, Any], *, every: float = 60.0, keep: int = 2, folder: str | None = None
    ) -> None:
        self._identity = json.loads(json.dumps(identity))
        self._every = every
        self._keep = keep
        self._folder = folder or os.environ.get("SURVEY_CHECKPOINT") or None
        self._saved = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is old enough for another."""
        return self._folder is not None and time.monotonic() - self._saved >= self._every

    def load(self) -> State | None:
        """The latest state of this training; None where there is none that can be used, which is told on stderr."""
        found = trial.latest_checkpoint(self._folder) if self._folder is not None else None
        if found is None:
            return None
        step, folder = found
        try:
            facts = json.loads(Path(folder, "facts.json").read_text(encoding="utf-8"))
            with np.load(Path(folder, "arrays.npz"), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            same = facts.pop("identity") == self._identity
        except _UNREADABLE as error:
            _say(f"the checkpoint {folder} cannot be read ({error}): training from the beginning")
            return None
        if not same:
            _say(f"the checkpoint {folder} is of another training: training from the beginning")
            return None
        return State(step=step, arrays=arrays, facts=facts)

    def save(self, state: State) -> None:
        """Keep a state, whole or not at all; outside a survey nothing is kept."""
        if self._folder is None:
            return
        with trial.new_checkpoint(state.step, self._keep, self._folder) as folder:
            arrays: dict[str, Any] = dict(state.arrays)
            np.savez(Path(folder, "arrays.npz"), **arrays)
            facts = {**state.facts, "identity": self._identity}
            Path(folder, "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        self._saved = time.monotonic()


def random_state() -> dict[str, Any]:
    """State of Python's and NumPy's global generators, as JSON."""
    numpy = plain(np.random.get_state(legacy=False))  # noqa: NPY002 - libraries draw from it
    return {"python": random.getstate(), "numpy": numpy}


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set Python's and NumPy's global generators to what `random_state` gave."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    numpy = state["numpy"]
    inner = {**numpy["state"], "key": np.asarray(numpy["state"]["key"], np.uint32)}
    np.random.set_state({**numpy, "state": inner})  # noqa: NPY002 - as above


def numpy_states(generators: Mapping[str, Any]) -> dict[str, Any]:
    """State of the global generators and of those of NumPy among ``generators``, as JSON."""
    own = {name: each for name, each in generators.items() if isinstance(each, np.random.Generator)}
    return {
        "random": random_state(),
        "generators": {name: plain(each.bit_generator.state) for name, each in own.items()},
    }


def plain(value: Any) -> Any:
    """Turn NumPy's arrays and scalars, within mappings too, into what JSON has."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)  # noqa: T201 - the trial's log is where one looks
