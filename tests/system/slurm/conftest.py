"""Where the invariants are."""

from __future__ import annotations

import sys
from pathlib import Path

_CHAOS = str(Path(__file__).parents[2] / "chaos")
sys.path[:0] = [_CHAOS] if _CHAOS not in sys.path else []
