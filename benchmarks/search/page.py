"""Put what was measured into a page of the docs, between two marks that a reader does not see."""

from __future__ import annotations

from pathlib import Path

__all__ = ["fill"]


def fill(page: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- end of name -->``.

    Raises
    ------
    ValueError
        If the page has not exactly one such pair.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    whole = page.read_text(encoding="utf-8")
    if whole.count(begin) != 1 or whole.count(end) != 1 or whole.index(end) < whole.index(begin):
        raise ValueError(f"{page}: needs a line {begin.strip()} and, after it, one {end}")
    before, rest = whole.split(begin)
    after = rest.split(end)[1]
    page.write_text(f"{before}{begin}{text.rstrip()}\n{end}{after}", encoding="utf-8")
