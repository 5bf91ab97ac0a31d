"""A Grid Engine that is another's is never touched."""

from __future__ import annotations

from pathlib import Path

import gridengine_cluster
import pytest
from gridengine_cluster import CannotProvide, GridEngineCluster

pytestmark = [pytest.mark.system, pytest.mark.slow]


def test_a_cell_that_names_its_master_is_another_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    master = tmp_path / "default/common/act_qmaster"
    master.parent.mkdir(parents=True)
    monkeypatch.setattr(gridengine_cluster, "_PACKAGED", tmp_path)
    cluster = GridEngineCluster(tmp_path / "own")
    master.write_text("\n")  # as the package leaves it
    cluster.refuse_foreign()
    master.write_text("head.example.org\n")
    with pytest.raises(CannotProvide, match="a Grid Engine of its own"):
        cluster.up()
    assert not (tmp_path / "own").exists()


def test_the_cluster_that_sge_root_names_is_another_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGE_ROOT", "/opt/sge")
    with pytest.raises(CannotProvide, match="SGE_ROOT is /opt/sge"):
        GridEngineCluster(tmp_path / "own").up()
    assert not (tmp_path / "own").exists()
