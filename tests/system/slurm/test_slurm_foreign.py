"""A machine whose Slurm is another's is not touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import slurm_cluster
from slurm_cluster import CannotProvide, Cluster

pytest_plugins = ("slurm_fixtures",)
pytestmark = pytest.mark.system


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("root")
def test_a_slurm_conf_of_the_machine_is_a_reason_not_to_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    conf.touch()
    monkeypatch.setattr(slurm_cluster, "_FOREIGN_CONF", (conf,))
    _assert_refused(tmp_path / "ours", f"this machine has a Slurm of its own \\({conf}\\)")


@pytest.mark.usefixtures("root")
def test_a_cluster_that_the_environment_names_is_a_reason_not_to_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLURM_CONF", "/shared/slurm.conf")
    _assert_refused(tmp_path / "ours", "SLURM_CONF is /shared/slurm.conf: .* unset it")


def test_without_root_nothing_is_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    _assert_refused(tmp_path / "ours", "run as root")


def test_a_slurmctld_that_is_not_the_tests_own_is_a_reason_not_to_start(cluster: Cluster, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert cluster.layout.root != other
    _assert_refused(other, r"a slurmctld that is not the tests' runs here \(process \d+\)")


def _assert_refused(root: Path, words: str) -> None:
    with pytest.raises(CannotProvide, match=words):
        Cluster(root).up()
    assert not root.exists()
