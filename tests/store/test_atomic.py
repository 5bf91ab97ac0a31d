"""Files are whole or not there, private, and an operating system's refusal is told in words."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from orchestrator.errors import Paused, SurveyError, UsageError
from orchestrator.store.atomic import create_exclusive, make_directory, read_json, write_bytes, write_json


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_and_folders_are_their_owners_alone(tmp_path: Path) -> None:
    folder = make_directory(tmp_path / "a" / "b")
    write_json(folder / "x.json", {"a": 1})
    assert [mode(tmp_path / "a"), mode(folder), mode(folder / "x.json")] == [0o700, 0o700, 0o600]


def test_what_is_written_is_read_back_and_no_temporary_file_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"old": 1})
    write_json(tmp_path / "x.json", {"ünï": [1, 2.5, None]})
    assert read_json(tmp_path / "x.json") == {"ünï": [1, 2.5, None]}
    assert os.listdir(tmp_path) == ["x.json"]


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe"])
def test_a_torn_file_reads_as_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    assert read_json(tmp_path / "x.json") is None
    assert read_json(tmp_path / "missing" / "x.json") is None


def fail_with(code: int) -> object:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["write", "fsync", "close", "replace"])
def test_a_full_disk_or_quota_pauses_names_the_file_and_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    path = tmp_path / "x.json"
    write_json(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail_with(code))
        with pytest.raises(Paused, match=r"x\.json") as caught:
            write_json(path, "new")
    assert "free space" in caught.value.hint
    assert read_json(path) == "old"
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_read_only_root_is_the_users_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", fail_with(errno.EROFS))
    with pytest.raises(UsageError, match="Read-only file system") as caught:
        write_bytes(tmp_path / "x", b"")
    assert "root folder" in caught.value.hint


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(UsageError, match="Not a directory"):
        make_directory(tmp_path / "f" / "g")


def test_an_input_output_error_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", fail_with(errno.EIO))
    with pytest.raises(SurveyError, match="Input/output error") as caught:
        write_bytes(tmp_path / "x", b"")
    assert type(caught.value) is SurveyError


def test_a_stale_handle_is_looked_up_afresh_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "x.json", 1)
    real, calls = Path.read_bytes, []

    def stale_first(path: Path) -> bytes:
        calls.append(path)
        if len(calls) == 1:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", stale_first)
    assert read_json(tmp_path / "x.json") == 1
    assert len(calls) == 2


def test_only_the_first_creates_exclusively(tmp_path: Path) -> None:
    assert create_exclusive(tmp_path / "x", b"first")
    assert not create_exclusive(tmp_path / "x", b"second")
    assert (tmp_path / "x").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["x"]


def test_exclusive_creation_works_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    assert create_exclusive(tmp_path / "x", b"first")
    assert not create_exclusive(tmp_path / "x", b"second")
    assert (tmp_path / "x").read_bytes() == b"first"


def test_a_link_whose_success_nfs_reported_as_failure_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def link_then_complain(source: Path, target: Path, *, follow_symlinks: bool) -> None:
        real(source, target, follow_symlinks=follow_symlinks)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    monkeypatch.setattr(os, "link", link_then_complain)
    assert create_exclusive(tmp_path / "x", b"mine")


def test_a_link_in_the_place_of_the_file_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("untouched")
    (tmp_path / "x").symlink_to(tmp_path / "target")
    write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "target").read_text() == "untouched"
    assert not (tmp_path / "x").is_symlink()
