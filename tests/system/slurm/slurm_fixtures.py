"""One Slurm for all system tests: brought up when the first one asks, stopped after the last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import CannotProvide, Cluster, Settings
from slurm_place import MakePlace, Place


@pytest.fixture(scope="session")
def own_cluster() -> Iterator[Cluster]:
    """The cluster as its settings happen to be; tests ask for `cluster` or for one with settings of its own."""
    cluster = Cluster()
    try:
        cluster.up(Settings())
    except CannotProvide as error:
        pytest.fail(f"no Slurm to test with: {error}", pytrace=False)
    yield cluster
    cluster.down()


@pytest.fixture
def cluster(own_cluster: Cluster) -> Cluster:
    """The cluster with accounting and Slurm's own memory of ended jobs; both nodes up, no job in it."""
    return _fresh(own_cluster, Settings())


@pytest.fixture
def forgetful_cluster(own_cluster: Cluster) -> Cluster:
    """The cluster without accounting, which forgets a job 5 s after its end."""
    return _fresh(own_cluster, Settings(accounting=False, min_job_age=5))


def _fresh(cluster: Cluster, settings: Settings) -> Cluster:
    cluster.up(settings)
    cluster.empty()
    return cluster


@pytest.fixture
def make_place(tmp_path: Path) -> Iterator[MakePlace]:
    places: list[Place] = []

    def make(cluster: Cluster, *, trials: int, **keys: Any) -> Place:
        root = tmp_path / str(len(places))
        root.mkdir()
        places.append(Place(root, cluster, trials=trials, **keys))
        return places[-1]

    yield make
    for place in places:
        place.close()
