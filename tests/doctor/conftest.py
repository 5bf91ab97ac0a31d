"""Lets tests of the doctor use the little study, the loopback link and the real Slurm of other folders."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTS = Path(__file__).resolve().parent.parent
_FOLDERS = [str(_TESTS / name) for name in ("cli", "transports", "system/slurm")]
sys.path[:0] = [folder for folder in _FOLDERS if folder not in sys.path]
