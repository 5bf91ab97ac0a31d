"""What a folder's file system is good for: room, rename, locks, how soon others see a file, clocks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from orchestrator.doctor.findings import Finding, amount, error, ok, warn
from orchestrator.errors import SurveyError
from orchestrator.transports.trouble import file_trouble

__all__ = ["SKEW", "judge_clock", "judge_folder", "judge_room", "quota_rows"]

SKEW = 30.0  # seconds by which clocks may differ without a word
_WRONG = 1800.0  # history is asked for with an hour's margin
_LITTLE, _NONE = 2e9, 1e8
_FEW, _NO_INODES = 20_000, 1_000
_FULL = 0.9

_SHARED = {"lustre", "gpfs", "beegfs", "ceph", "panfs", "wekafs", "orangefs", "pvfs2", "fuse.ceph", "fefs", "llite"}
_NFS = {"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "fuse.sshfs"}
_MEMORY = {"tmpfs", "ramfs"}


def judge_folder(facts: Mapping[str, Any] | None, *, site: str, batch: bool, database: bool) -> list[Finding]:
    """Say what was found in a folder.

    Parameters
    ----------
    facts : mapping or None
        Of `orchestrator.doctor.far_side.examine_folder`; None if it never came back.
    site : str
        For messages.
    batch : bool
        Whether jobs run on other machines, which must see it.
    database : bool
        Whether the study's database lies there too.
    """
    if facts is None:
        return [
            error(
                "work root",
                "its file system gave no answer in time",
                "A file server hangs: tell the site. Studies there wait until it is back.",
            )
        ]
    if failure := facts["error"]:
        lines = _kind(facts, batch=batch) if facts.get("mount") else []
        trouble = file_trouble(site, failure["errno"], failure["message"], failure["path"])
        words = trouble.message if isinstance(trouble, SurveyError) else f"{failure['path']}: {failure['message']}"
        hint = trouble.hint if isinstance(trouble, SurveyError) else "See whether that file system is well."
        return [*lines, error("work root", words, hint), *(judge_room(facts["room"]) if facts.get("room") else [])]
    lines = [*_kind(facts, batch=batch), *judge_room(facts["room"]), *_quotas(facts.get("quotas") or {})]
    return [*lines, *_renames(facts["tried"]), *_locks(facts["tried"], database=database), *_sight(facts)]


def _kind(facts: Mapping[str, Any], *, batch: bool) -> list[Finding]:
    kind, place = facts["mount"]["kind"], facts["mount"]["place"]
    where = f"{facts['path']} on {kind or 'a file system of unknown kind'}"
    if kind in _MEMORY:
        return [
            warn(
                "work root",
                f"{where}: it lies in memory, and is gone when the machine starts again",
                "Choose a folder on a disk" + (" that the compute nodes see." if batch else "."),
            )
        ]
    if kind in _NFS:
        return [
            ok("work root", f"{where} ({place}); other nodes see new files some seconds late, which is allowed for")
        ]
    if kind in _SHARED or not batch:
        return [ok("work root", f"{where} ({place})")]
    return [
        warn(
            "work root",
            f"{where} ({place}): this looks like a disk of that machine alone",
            "The compute nodes must see it under the same path; `--probe` finds out.",
        )
    ]


def judge_room(room: Mapping[str, Any]) -> list[Finding]:
    """Space and inodes."""
    text = f"{amount(room['free'])} free of {amount(room['size'])}"
    inodes = room["inodes_free"]
    if inodes is not None:
        text += f", {inodes:,} inodes free"
    if room["free"] < _NONE or (inodes is not None and inodes < _NO_INODES):
        return [error("space", text, "Make room, or choose another folder: a study pauses when it cannot write.")]
    if room["free"] < _LITTLE or (inodes is not None and inodes < _FEW):
        return [
            warn("space", text, "A trial keeps checkpoints and artifacts, in a dozen files or more: is that enough?")
        ]
    return [ok("space", text)]


def quota_rows(text: str) -> list[dict[str, Any]]:
    """Read the rows that ``quota -w`` and ``lfs quota -q`` print: use and limit in KiB, and of files.

    A row is a place and eight cells: blocks, quota, limit, grace, and the same of files; ``*`` marks what
    is over; the grace is missing where it does not run in one of them, and ``-`` in the other.
    """
    rows = []
    for line in text.splitlines():
        place, *cells = line.split() or [""]
        numbers = [cell for cell in cells if re.fullmatch(r"\d+[kK]?\*?", cell)]
        if len(numbers) < 6 or "/" not in place:
            continue
        blocks, soft, hard, files, files_soft, files_hard = numbers[:6]
        limits = [int(number.rstrip("kK*")) for number in (soft, hard, files_soft, files_hard)]
        rows.append(
            {
                "place": place,
                "blocks": int(blocks.rstrip("kK*")),
                "blocks_limit": min((limit for limit in limits[:2] if limit), default=None),
                "files": int(files.rstrip("*")),
                "files_limit": min((limit for limit in limits[2:] if limit), default=None),
                "over": "*" in blocks or "*" in files,
            }
        )
    return rows


def _quotas(answers: Mapping[str, Any]) -> list[Finding]:
    if not answers:
        return [ok("quota", "no command there tells it (quota, lfs); see the site's own")]
    lines = []
    for name, answer in answers.items():
        rows = quota_rows(answer["stdout"])
        if not rows:
            # quota(1) prints nothing where there is no quota, and says "none" in words.
            silent = answer["returncode"] == 0
            words = "no limit" if silent else f"`{name}` says nothing that can be read"
            lines.append(ok("quota", words if silent else f"{words}; see the site's own command"))
        lines += [_quota(row) for row in rows]
    return lines


def _quota(row: Mapping[str, Any]) -> Finding:
    used = f"{row['place']}: {amount(row['blocks'] * 1024)}"
    used += f" of {amount(row['blocks_limit'] * 1024)}" if row["blocks_limit"] else ""
    used += f", {row['files']:,} files"
    used += f" of {row['files_limit']:,}" if row["files_limit"] else ""
    shares = [row[name] / row[f"{name}_limit"] for name in ("blocks", "files") if row[f"{name}_limit"]]
    share = max(shares, default=0.0)
    if row["over"] or share >= 1.0:
        return error("quota", f"{used}: used up", "Make room there: a study pauses when it cannot write.")
    if share > _FULL:
        return warn("quota", f"{used}: {100 * share:.0f} % are used", "Make room before the study does.")
    return ok("quota", used)


def _renames(tried: Mapping[str, Any]) -> list[Finding]:
    broken = [name for name in ("rename", "exclusive") if not tried[name]]
    if broken:
        words = {"rename": "a rename does not replace a file whole", "exclusive": "two can create the same file"}
        return [
            error(
                "rename",
                "; ".join(words[name] for name in broken),
                "Attempts cannot be claimed safely there: choose another file system for `work_root:`.",
            )
        ]
    return [ok("rename", f"replaces whole; exclusive create works; 1 MB synced in {tried['write']:.2f} s")]


def _locks(tried: Mapping[str, Any], *, database: bool) -> list[Finding]:
    broken = [name for name in ("lockf", "flock") if tried[name] is not True]
    if not broken:
        return [ok("locks", "lockf and flock keep a second process out")]
    why = "; ".join(f"{name}: {tried[name] or 'keeps nobody out'}" for name in broken)
    if not database:
        return [ok("locks", f"not to be had ({why}), and not needed there")]
    return [
        warn(
            "locks",
            f"not to be had ({why})",
            "A study runs there by its lease alone. Open its database with nothing else, and run the driver on "
            "one machine; or set `storage:` in study.yaml to a database elsewhere.",
        )
    ]


def _sight(facts: Mapping[str, Any]) -> list[Finding]:
    seen = facts["tried"].get("seen")
    lines = judge_clock("file clock", facts["file_clock"], "the file server's clock", "that machine's")
    if seen is None:
        return [*lines, warn("visibility", "a second process did not see a new file in time", "See the file system.")]
    return [*lines, ok("visibility", f"a second process there sees a new file after {seen:.2f} s")]


def judge_clock(subject: str, skew: float, whose: str, against: str, *, unsure: float = 0.0) -> list[Finding]:
    """Judge by how many seconds a clock is ahead of another; ``unsure`` is what the measurement may be off."""
    off = max(0.0, abs(skew) - unsure)
    text = f"{whose} is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} {against}"
    if off <= SKEW:
        return [ok(subject, f"{whose} and {against} agree to {max(abs(skew), unsure, 0.1):.1f} s")]
    hint = "Times in reports, and leases between machines, are off by that much. Have the clock set (NTP)."
    if off < _WRONG:
        return [warn(subject, text, hint)]
    return [error(subject, text, f"{hint} The history of jobs cannot be asked for rightly, either.")]
