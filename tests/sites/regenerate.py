"""Write all golden files again: ``python tests/sites/regenerate.py``, then read what git shows as changed."""

from __future__ import annotations

from golden_shapes import FOLDER, SHAPES, text_of

from orchestrator import resources
from orchestrator.config.site import load_site


def main() -> None:
    """Replace the golden files of every site that ships."""
    for old in FOLDER.glob("*/*"):
        old.unlink()
    for path in sorted(resources.folders("sites")[-1].glob("*.yaml")):
        site = load_site(path)
        for name, shape in SHAPES.items():
            text, suffix = text_of(site, shape)
            target = FOLDER / site.name / f"{name}{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
