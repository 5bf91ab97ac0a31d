"""What is said of file systems, quotas and clocks, from the facts that were found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from looks import bad, of, said

from orchestrator.doctor import far_side
from orchestrator.doctor.findings import Level
from orchestrator.doctor.folders import judge_clock, judge_folder, judge_room, quota_rows

# proc(5): mountinfo. A mount on a mount, a path with a blank, an automounter's own entry above the real one.
MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:40 / /home rw - autofs systemd-1 rw,fd=30
41 40 0:41 / /home/group\\040one rw,nosuid - nfs4 filer:/vol/one rw,vers=4.1
42 22 0:42 / /work rw - lustre 10.0.0.1@o2ib:/scratch rw,flock
43 22 0:43 / /worker rw - tmpfs tmpfs rw
"""

# lfs-quota(1) -q, quota(1) -w: a user over one limit, one without limits, one whose grace runs.
LFS = "     /work  310*    0  300     -  30061       0 50000       -\n"
QUOTA = """\
Disk quotas for user z12345 (uid 1234):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
  filer:/vol/one  95000   90000  100000   6days    1200       0       0
      filer:/two    1000       0       0            12       0       0
"""


@pytest.mark.parametrize(
    ("path", "kind", "place"),
    [
        ("/home/group one/alice", "nfs4", "/home/group one"),
        ("/work/gr/runs", "lustre", "/work"),
        ("/worker/x", "tmpfs", "/worker"),
        ("/workshop", "ext4", "/"),
        ("/home/alice", "ext4", "/"),
    ],
)
def test_a_path_lies_on_the_longest_mount_around_it(path: str, kind: str, place: str) -> None:
    found = far_side.mount_of(path, MOUNTS)
    assert (found["kind"], found["place"]) == (kind, place)


def facts(kind: str, **changes: Any) -> dict[str, Any]:
    return {
        "path": "/work/runs",
        "error": None,
        "mount": {"kind": kind, "source": "x", "place": "/work"},
        "room": {"free": 1e12, "size": 2e12, "inodes_free": 10**7, "inodes": 10**8, "read_only": False},
        "quotas": {},
        "file_clock": 0.0,
        "tried": {"write": 0.1, "rename": True, "exclusive": True, "lockf": True, "flock": True, "seen": 0.0},
        **changes,
    }


@pytest.mark.parametrize(
    ("kind", "batch", "level"),
    [
        ("lustre", True, Level.OK),
        ("nfs4", True, Level.OK),
        ("ext4", False, Level.OK),
        ("ext4", True, Level.WARN),
        ("tmpfs", False, Level.WARN),
        ("tmpfs", True, Level.WARN),
    ],
)
def test_a_file_system_is_judged_by_who_must_see_it(kind: str, batch: bool, level: Level) -> None:
    found = judge_folder(facts(kind), site="s", batch=batch, database=False)
    (line,) = of(found, "work root")
    assert line.level is level


def test_locks_matter_where_the_database_lies_and_nowhere_else() -> None:
    broken = facts("nfs4", tried={**facts("nfs4")["tried"], "lockf": "No locks available", "flock": False})
    remote = judge_folder(broken, site="s", batch=True, database=False)
    here = judge_folder(broken, site="s", batch=True, database=True)
    assert bad(remote) == {}
    assert bad(here) == {"locks": Level.WARN}
    assert "lockf: No locks available; flock: keeps nobody out" in said(here, "locks")


@pytest.mark.parametrize("name", ["rename", "exclusive"])
def test_a_file_system_on_which_two_could_claim_one_attempt_is_an_error(name: str) -> None:
    broken = facts("odd", tried={**facts("odd")["tried"], name: False})
    assert bad(judge_folder(broken, site="s", batch=False, database=False)) == {"rename": Level.ERROR}


@pytest.mark.parametrize(
    ("free", "inodes", "level"),
    [
        (1e12, None, Level.OK),
        (1e12, 10**6, Level.OK),
        (1e9, None, Level.WARN),
        (1e12, 5000, Level.WARN),
        (5e7, 10**6, Level.ERROR),
        (1e12, 10, Level.ERROR),
    ],
)
def test_little_room_is_a_warning_and_none_an_error(free: float, inodes: int | None, level: Level) -> None:
    (line,) = judge_room({"free": free, "size": 2e12, "inodes_free": inodes})
    assert line.level is level


def test_quotas_are_read_in_both_forms() -> None:
    (lustre,) = quota_rows(LFS)
    assert (lustre["blocks"], lustre["blocks_limit"], lustre["over"]) == (310, 300, True)
    assert (lustre["files"], lustre["files_limit"]) == (30061, 50000)
    one, two = quota_rows(QUOTA)
    assert (one["blocks"], one["blocks_limit"], one["files"], one["files_limit"]) == (95000, 90000, 1200, None)
    assert (two["blocks"], two["blocks_limit"]) == (1000, None)


def test_a_quota_that_is_used_up_is_an_error() -> None:
    answer = {"stdout": LFS, "stderr": "", "returncode": 0}
    found = judge_folder(facts("lustre", quotas={"lfs quota": answer}), site="s", batch=True, database=False)
    assert bad(found) == {"quota": Level.ERROR}
    assert "used up" in said(found, "quota")


@pytest.mark.parametrize(
    ("skew", "unsure", "level"),
    [(5.0, 0.0, Level.OK), (-45.0, 20.0, Level.OK), (-60.0, 0.0, Level.WARN), (4000.0, 1.0, Level.ERROR)],
)
def test_a_clock_is_judged_by_what_its_error_would_spoil(skew: float, unsure: float, level: Level) -> None:
    (line,) = judge_clock("clock", skew, "the one", "the other", unsure=unsure)
    assert line.level is level


@pytest.mark.system
def test_a_small_full_file_system_is_met_by_writing(tmp_path: Path) -> None:
    inside = f"""
import json, os, sys
sys.path.insert(0, {str(Path(far_side.__file__).parent)!r})
import far_side
folder = {str(tmp_path / "full")!r}
filler = os.open(folder + "/filler", os.O_WRONLY | os.O_CREAT)
try:
    while True:
        os.write(filler, b"0" * 4096)
except OSError:
    print(json.dumps(far_side.examine_folder(folder)))
"""
    (tmp_path / "full").mkdir()
    mount = f'mount -t tmpfs -o size=128k tmpfs {tmp_path}/full && exec {sys.executable} -I -S -c "$0"'
    done = subprocess.run(["unshare", "-rm", "sh", "-c", mount, inside], capture_output=True, text=True, check=True)
    found = judge_folder(json.loads(done.stdout), site="s", batch=False, database=False)
    assert "no space left" in said(found, "work root")
    assert bad(found)["space"] is Level.ERROR
