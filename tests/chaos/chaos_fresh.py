"""Opens the study databases of some folders in a process of its own, and prints what is in them.

``python chaos_fresh.py NAME URL FOLDER...``; the URL is empty for the study's own SQLite file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chaos_invariants import history

from orchestrator.store.studydb import read_trials

__all__ = ["opened_in_a_fresh_process"]


def opened_in_a_fresh_process(folders: Sequence[Path], *, name: str = "chaos", url: str = "") -> list[Any]:
    """The histories of the studies in ``folders``, as a process sees them that has never seen them before."""
    done = subprocess.run(
        [sys.executable, __file__, name, url, *map(str, folders)], capture_output=True, text=True, check=True
    )
    return list(json.loads(done.stdout))


if __name__ == "__main__":
    _, study, place, *roots = sys.argv
    json.dump([history(read_trials(Path(root), name=study, url=place or None)) for root in roots], sys.stdout)
