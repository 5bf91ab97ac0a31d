from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from study_records import training_like

DOCUMENT = Path(__file__).parents[2] / "docs" / "reports.md"


def test_the_one_line_calls_of_the_documentation_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    calls = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)[1]
    names: dict[str, Any] = {"record": training_like(12)}
    exec(compile(calls, str(DOCUMENT), "exec"), names)
    assert [path.name for path in names["files"]] == ["aneurysm.png", "aneurysm.svg", "aneurysm.pdf"]
    assert names["path"].is_file()
    assert len(names["best"]) == 12
    assert names["table"].startswith("| sampler |")
