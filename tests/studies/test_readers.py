"""A study's record is its owner's alone, or its owner's and a group's that may read it; trials' files are private."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_driver_in_virtual_time import Scene, study

from orchestrator.errors import UsageError
from orchestrator.simulate.clock import run_virtual
from orchestrator.store.atomic import make_directory, write_json
from orchestrator.store.readers import shared
from orchestrator.store.record import StudyRecord

GROUP = grp.getgrgid(os.getgid()).gr_name


@pytest.fixture(params=[0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, set[str]]:
    """How the files and folders below ``folder`` may be used, by kind."""
    kinds: dict[str, set[str]] = {"d": set(), "-": set()}
    for path in [folder, *folder.rglob("*")]:
        words = stat.filemode(path.lstat().st_mode)
        kinds[words[0]].add(words)
    return kinds


def drive(folder: Path, readers: str | None, trials: int) -> StudyRecord:
    async def drive_it() -> StudyRecord:
        return await Scene(folder).run(study(readers=readers, trials=trials))

    return run_virtual(drive_it())


@pytest.mark.usefixtures("umask")
def test_a_group_that_is_named_may_read_the_whole_record_and_nobody_may_write_it(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    record = drive(root, GROUP, 2)
    assert record.state == "done"
    assert modes(root / "virtual") == {"d": {"drwxr-s---"}, "-": {"-rw-r-----"} | locks(root)}
    assert stat.filemode(root.stat().st_mode) == "drwx--x--x"
    assert {path.stat().st_gid for path in (root / "virtual").rglob("*")} == {os.getgid()}


def locks(root: Path) -> set[str]:
    """The lock of the lease says nothing that anybody could want to read."""
    return {stat.filemode((root / "virtual/lease/lock").stat().st_mode)}


@pytest.mark.usefixtures("umask")
def test_a_study_may_be_opened_to_a_group_later_and_closed_again(tmp_path: Path) -> None:
    drive(tmp_path, None, 1)
    root = tmp_path / "virtual"
    assert modes(root) == {"d": {"drwx------"}, "-": {"-rw-------"}}
    make_directory(root / "trials/00000")
    (root / "driver.log").touch(mode=0o600)
    outside = tmp_path / "outside"
    outside.write_text("secret", encoding="utf-8")
    outside.chmod(0o600)
    (root / "link").symlink_to(outside)
    drive(tmp_path, GROUP, 2)
    assert stat.filemode((root / "ledger/00000/attempt-1.json").stat().st_mode) == "-rw-r-----"
    assert stat.filemode((root / "study.db").stat().st_mode) == "-rw-r-----"
    # What trials write, and what a link leads to, is not the record.
    assert stat.filemode((root / "trials").stat().st_mode) == "drwx------"
    assert stat.filemode((root / "trials/00000").stat().st_mode) == "drwx------"
    assert stat.filemode((root / "driver.log").stat().st_mode) == "-rw-------"
    assert stat.filemode(outside.stat().st_mode) == "-rw-------"
    drive(tmp_path, None, 3)
    assert stat.filemode(root.stat().st_mode) == "drwx------"


def test_a_folder_that_was_opened_by_hand_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with shared(tmp_path, None):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_what_lies_elsewhere_stays_private_while_a_record_is_shared(tmp_path: Path) -> None:
    with shared(tmp_path / "mine", GROUP):
        write_json(tmp_path / "mine/record.json", {})
        write_json(tmp_path / "other.json", {})
        make_directory(tmp_path / "elsewhere/below")
    assert stat.S_IMODE((tmp_path / "mine/record.json").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "other.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o700
    write_json(tmp_path / "mine/later.json", {})
    assert stat.S_IMODE((tmp_path / "mine/later.json").stat().st_mode) == 0o600


def test_a_group_that_is_not_there_ends_it_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no group 'nobody-has-this'") as caught:
        drive(tmp_path, "nobody-has-this", 1)
    assert GROUP in caught.value.hint
    assert not (tmp_path / "virtual").exists()


def test_a_group_of_others_is_refused_with_the_names_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    with pytest.raises(UsageError, match="cannot be given to the group") as caught, shared(tmp_path / "x", GROUP):
        pass
    assert GROUP in caught.value.hint
