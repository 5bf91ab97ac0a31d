"""A journal that was cut anywhere is mended, and goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection

from orchestrator.errors import Paused
from orchestrator.store.journal import MendedJournal, open_journal


def make(path: Path) -> None:
    storage = open_journal(path)
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    storage.create_new_trial(study_id)
    storage.create_new_trial(study_id)


def test_a_tail_cut_by_any_number_of_bytes_is_mended_and_the_journal_opens_twice_more(tmp_path: Path) -> None:
    whole = tmp_path / "whole.log"
    make(whole)
    content = whole.read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(1, len(content) - last):
        path = tmp_path / f"{cut}.log"
        path.write_bytes(content[:-cut])
        storage = open_journal(path)
        study_id = storage.get_study_id_from_name("s")
        assert storage.get_n_trials(study_id) == 1
        storage.create_new_trial(study_id)
        for _ in range(2):
            assert open_journal(path).get_n_trials(study_id) == 2
        assert Path(f"{path}.bak").read_bytes() == content[last : len(content) - cut] + b"\n"


def test_a_tail_torn_while_the_journal_is_open_is_mended_before_the_next_record(tmp_path: Path) -> None:
    path = tmp_path / "j.log"
    storage = open_journal(path)
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    storage.create_new_trial(study_id)
    assert open_journal(path).get_n_trials(study_id) == 1


def test_a_record_whose_write_failed_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.log"
    make(path)
    before = path.read_bytes()
    storage = open_journal(path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(Paused, match=r"j\.log: No space"):
            storage.create_new_trial(storage.get_study_id_from_name("s"))
    assert path.read_bytes() == before
    assert not Path(f"{path}.lock").exists()


def test_plain_optuna_reads_the_journal(tmp_path: Path) -> None:
    make(tmp_path / "j.log")
    plain = JournalStorage(JournalFileBackend(str(tmp_path / "j.log")))
    assert plain.get_n_trials(plain.get_study_id_from_name("s")) == 2


def test_the_journal_is_private_and_its_path_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    storage = open_journal(Path("sub/j.log"))
    monkeypatch.chdir("/")
    storage.create_new_study([StudyDirection.MINIMIZE], "s")
    assert (tmp_path / "sub" / "j.log").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / "sub") == ["j.log"]


def test_an_empty_journal_needs_no_mending(tmp_path: Path) -> None:
    path = tmp_path / "j.log"
    path.write_bytes(b"")
    MendedJournal(path).append_logs([])
    assert path.read_bytes() == b""


def test_the_lock_of_a_killed_driver_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "j.log"
    make(path)
    Path(f"{path}.lock").touch()
    storage = open_journal(path)
    assert storage.get_n_trials(storage.get_study_id_from_name("s")) == 2
    assert not Path(f"{path}.lock").exists()


GARBAGE = [b"\0" * 40 + b"\n", b'{{"op_code":4}\n', b"\xff\xfe\n", b"[1,2]\n", b'{"op_code": 4, "wor', b"x\ny\nz"]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_at_the_end_is_cut_kept_aside_and_the_journal_goes_on(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "j.log"
    make(path)
    with path.open("ab") as file:
        file.write(garbage)
    storage = open_journal(path)
    study_id = storage.get_study_id_from_name("s")
    storage.create_new_trial(study_id)
    assert Path(f"{path}.bak").read_bytes() == garbage + b"\n"
    for _ in range(2):
        assert open_journal(path).get_n_trials(study_id) == 3
    plain = JournalStorage(JournalFileBackend(str(path)))
    assert plain.get_n_trials(study_id) == 3


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_that_comes_while_the_journal_is_open_is_cut_before_the_next_record(
    tmp_path: Path, garbage: bytes
) -> None:
    path = tmp_path / "j.log"
    storage = open_journal(path)
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    with path.open("ab") as file:
        file.write(garbage)
    storage.create_new_trial(study_id)
    storage.create_new_trial(study_id)
    assert open_journal(path).get_n_trials(study_id) == 2


def test_a_bad_line_with_good_ones_behind_it_is_damage_and_nothing_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "j.log"
    make(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{{" + b"".join(lines[1:]))
    before = path.read_bytes()
    with pytest.raises(Paused, match=f"what stands at byte {len(lines[0])} is no record") as caught:
        open_journal(path)
    assert "--rebuild" in caught.value.hint
    assert path.read_bytes() == before


def test_a_journal_that_was_cut_short_while_in_use_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "j.log"
    storage = open_journal(path)
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    os.truncate(path, 0)
    with pytest.raises(Paused, match="cut short while it was in use"):
        storage.create_new_trial(study_id)


WRITER = """
import sys
from pathlib import Path
from optuna.study import StudyDirection
from orchestrator.store.journal import open_journal
storage = open_journal(Path(sys.argv[1]))
names = [study.study_name for study in storage.get_all_studies()]
study_id = storage.get_study_id_from_name("s") if names else storage.create_new_study([StudyDirection.MINIMIZE], "s")
while True:
    trial_id = storage.create_new_trial(study_id)
    storage.set_trial_user_attr(trial_id, "long", "x" * 100_000)
    print(trial_id, flush=True)
"""


def test_whatever_a_killed_writer_had_acknowledged_is_there(tmp_path: Path) -> None:
    path = tmp_path / "j.log"
    acknowledged: set[int] = set()
    for kill in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                acknowledged.add(int(line))
                if len(acknowledged) >= 7 * (kill + 1):
                    writer.kill()
                    break
            acknowledged.update(map(int, writer.stdout.read().split()))
    storage = open_journal(path)
    trials = storage.get_all_trials(storage.get_study_id_from_name("s"))
    assert {trial.number for trial in trials if "long" in trial.user_attrs} >= acknowledged
    assert len(trials) - len(acknowledged) <= 3  # of each kill one at most was in the making
