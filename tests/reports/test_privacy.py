from __future__ import annotations

import pytest
from study_records import training_like

from orchestrator.reports.privacy import provenance_rows, without_paths


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FileNotFoundError: '/data/Tanaka Taro/scan 1.nii.gz'", "FileNotFoundError: '[path]'"),
        ("cannot open /data/p0012/scan.nii", "cannot open [path]"),
        ("cannot open ~/p0012", "cannot open [path]"),
        ("case_0012.nii.gz is empty", "[path] is empty"),
        ("bad file (p12.dcm)", "bad file ([path])"),
        ("input=/data/p0012", "input=[path]"),
        (r"C:\scans\p0012 is missing", "[path] is missing"),
        ("loss is nan at epoch 3/10.", "loss is nan at epoch 3/10."),
        ("exit code 1, signal 9, N/A", "exit code 1, signal 9, N/A"),
        ("used 16.5 GiB of 16 GiB", "used 16.5 GiB of 16 GiB"),
        ("'adam' is not 'sgd'", "'adam' is not 'sgd'"),
    ],
)
def test_paths_are_taken_out_of_a_reason_and_the_rest_stays(text: str, said: str) -> None:
    assert without_paths(text) == said


def test_provenance_shows_what_repeats_a_study_and_names_nobody() -> None:
    rows = provenance_rows(training_like(1).provenance)
    assert ("git commit", "945c785") in rows
    assert ("git dirty", "no") in rows
    assert ("python version", "3.11.2") in rows
    assert ("packages", "numpy 2.4.6, optuna 5.0.0") in rows
    assert ("time", "2023-11-14 22:13:20 UTC") in rows
    told = str(rows)
    assert not any(word in told for word in ("someone", "patient", "secret-diff", "argv"))


def test_what_could_not_be_had_is_said() -> None:
    assert provenance_rows({"git": {"missing": "not a repository: /home/x"}}) == [("git", "not known")]
