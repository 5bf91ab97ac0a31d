"""The two servers, each started when the first test asks for it, and studies on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from database_servers import MariaDB, PostgreSQL, Server
from database_study import MakeStudy, Study
from debian_packages import CannotProvide


@pytest.fixture(scope="session", params=[PostgreSQL, MariaDB], ids=["postgresql", "mariadb"])
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    try:
        server: Server = request.param()
        server.up()
    except CannotProvide as error:
        pytest.fail(f"no database server to test with: {error}", pytrace=False)
    yield server
    server.down()


@pytest.fixture
def server(own_server: Server) -> Server:
    """A server of the tests' own, running."""
    if not own_server.answers():
        own_server.stop()
        own_server.start()
    return own_server


@pytest.fixture
def make_study(tmp_path: Path, server: Server) -> Iterator[MakeStudy]:
    studies: list[Study] = []

    def make(**keys: object) -> Study:
        root = tmp_path / str(len(studies))
        root.mkdir()
        studies.append(Study(root, server, **keys))  # type: ignore[arg-type]
        return studies[-1]

    yield make
    for study in studies:
        study.close()
