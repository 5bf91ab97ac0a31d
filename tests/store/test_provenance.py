"""What a study was run with is recorded, without secrets, and never fails the study."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.store.provenance import collect, write


def git(folder: Path, *words: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *settings, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "train.py").write_text("print(1)\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


def test_the_commit_and_what_was_not_committed_are_recorded(repository: Path) -> None:
    clean = collect(repository, ["python", "train.py"], now=5.0)["git"]
    assert clean["commit"] == git(repository, "rev-parse", "HEAD").strip()
    assert (clean["branch"], clean["dirty"], clean["diff"]) == ("main", False, "")
    (repository / "train.py").write_text("print(2)\n")
    (repository / "new.py").write_text("")
    dirty = collect(repository, "python train.py", now=5.0)["git"]
    assert dirty["dirty"]
    assert "+print(2)" in dirty["diff"]
    assert dirty["untracked"] == ["new.py"]


def test_a_huge_diff_is_cut_and_says_so(repository: Path) -> None:
    (repository / "train.py").write_text("x" * 600_000)
    found = collect(repository, "x", now=0.0)["git"]
    assert (len(found["diff"]), found["diff_cut"]) == (256 * 1024, True)


def test_what_cannot_be_had_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not a git repository" in collect(tmp_path, "x", [tmp_path / "gone"], now=0.0)["git"]["missing"]
    monkeypatch.setenv("PATH", "/nowhere")
    found = collect(tmp_path, "x", [tmp_path / "gone"], now=0.0)
    assert "FileNotFoundError" in found["git"]["missing"]
    assert "FileNotFoundError" in found["files"][str(tmp_path / "gone")]["missing"]


def test_packages_machine_and_modules_are_recorded_but_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOADEDMODULES", "cuda/12.4:gcc/13")
    monkeypatch.setenv("API_TOKEN", "hunter2")
    monkeypatch.setattr(sys, "argv", ["survey", "run", "--storage", "postgresql://me:hunter2@host/db"])
    found = collect(tmp_path, ["train", "--url=mysql://me:hunter2@h/d"], now=12.5)
    assert found["packages"]["optuna"].startswith("5")
    assert found["modules"] == ["cuda/12.4", "gcc/13"]
    assert found["time"] == 12.5
    assert found["python"]["executable"] == sys.executable
    assert "hunter2" not in json.dumps(found)


def test_files_are_known_by_their_content_and_a_dataset_by_its_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "dataset.json").write_text("{}")
    (data / "images" / "a.nii").write_bytes(b"voxels")
    (data / "images" / "dangling").symlink_to("nowhere")
    found = collect(tmp_path, "x", [data / "dataset.json", data], now=0.0)["files"]
    one, folder = found[str(data / "dataset.json")], found[str(data)]
    assert one["sha256"] == hashlib.sha256(b"{}").hexdigest()
    assert one["folder"] == folder
    assert (folder["files"], folder["cut"]) == (3, False)
    assert folder["sha256"]["images/a.nii"] == hashlib.sha256(b"voxels").hexdigest()


def test_a_folders_fingerprint_changes_with_any_of_its_files_and_only_then(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("b", "a"):
        (data / name).write_bytes(b"1")

    def fingerprint(folder: Path) -> str:
        digest: str = collect(tmp_path, "x", [folder], now=0.0)["files"][str(folder)]["manifest_sha256"]
        return digest

    before = fingerprint(data)
    shutil.copytree(data, tmp_path / "copy")
    assert fingerprint(tmp_path / "copy") == before
    os.utime(data / "a", (1, 1))
    assert fingerprint(data) != before


def test_a_device_or_a_pipe_that_a_command_names_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    files = [tmp_path / "pipe", Path("/dev/zero")]
    found = collect(tmp_path, "head -c 5 /dev/zero", files, now=1.0)["files"]
    assert [sorted(found[str(path)]) for path in files] == [["modified", "size"]] * 2


def test_it_is_written_as_json(tmp_path: Path) -> None:
    found = collect(tmp_path, "x", now=0.0)
    write(tmp_path, found)
    assert json.loads((tmp_path / "provenance.json").read_text()) == found
