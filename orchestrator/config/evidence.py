"""How far a site's values can be trusted: which are a file's own, and the site as YAML that says it of each."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pydantic import BaseModel

    from orchestrator.config.site import Site

__all__ = ["own_keys", "site_text"]

_LEGEND = """\
# documented: by the site itself (sources); assumed: from other people's scripts; own: by whoever changed the
# profile; default: this program's.
"""
# Words about the site, not values of it. They alone are folded, as a comment cannot stand inside a folded value.
_PROSE = frozenset({"schema_version", "name", "description", "work_root_hint", "notes", "sources", "evidence"})


def own_keys(data: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    """List the dotted keys of the values that a site file gives itself, below those that are ``known``."""
    for key, value in data.items():
        if key in _PROSE or key == "extends" or key not in known:
            continue
        if key == "queues" and isinstance(value, list):
            for row in value:
                if isinstance(row, dict):
                    yield from (f"queues.{row.get('name')}.{field}" for field in row)
        elif isinstance(value, dict):
            yield from (f"{key}.{field}" for field in value)
        else:
            yield key


def site_text(site: Site) -> str:
    """Write ``site``, complete and without ``extends``, as a file that `load_site` reads back."""
    data = site.model_dump(mode="json", exclude={"extends"})
    parts = [_LEGEND]
    for key, value in data.items():
        if key in _PROSE:
            parts.append(_yaml({key: value}, width=120))
        elif key == "queues" and value:
            parts.append("queues:\n")
            for queue, row in zip(site.queues, value, strict=True):
                lines = _lines(site, queue, row, f"queues.{queue.name}.")
                parts += [f"{'- ' if number == 0 else '  '}{line}" for number, line in enumerate(lines)]
        elif key in {"transport", "container", "poll", "limits"}:
            parts.append(f"{key}:\n")
            parts += [f"  {line}" for line in _lines(site, getattr(site, key), value, f"{key}.")]
        else:
            parts += _lines(site, site, {key: value}, "")
    return "".join(parts)


def _lines(site: Site, holder: BaseModel, values: Mapping[str, Any], prefix: str) -> list[str]:
    """One entry for each value; one of several lines has its comment on the first, behind the key."""
    lines, indent = [], "  " if prefix else ""
    for key, value in values.items():
        word: str | None = site.evidence_of(prefix + key)
        if key not in holder.model_fields_set and prefix + key not in site.evidence:
            word = "default"
        first, *rest = _yaml({key: value}, width=sys.maxsize).splitlines()
        lines.append("\n".join((f"{first}  # {word}" if word else first, *(indent + line for line in rest))) + "\n")
    return lines


def _yaml(data: Mapping[str, Any], *, width: int) -> str:
    import yaml

    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=width)
