"""Files of a site that is out of sight: brought here whole, in few requests, and nowhere but where they belong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from loopback import Loopback, loopback_transport

from orchestrator.errors import SurveyError
from orchestrator.jobs import fetch
from orchestrator.jobs.fetch import fetch_tails, fetch_tree
from orchestrator.transports.remote import Exchange


@pytest.fixture
def there(tmp_path: Path) -> Path:
    folder = tmp_path / "there" / "attempt 1"
    folder.mkdir(parents=True)
    return folder


async def test_the_ends_of_several_files_come_in_one_request_and_what_is_not_there_is_left_out(there: Path) -> None:
    (there / "stdout").write_text("one\ntwo\nthree\n")
    (there / "job.log").write_text("")
    transport = loopback_transport(Loopback())
    tails = await fetch_tails(transport, str(there), ("stdout", "stderr", "job.log"), limit=6)
    assert tails == {"stdout": b"three\n"}
    assert transport.requests == 1


async def test_a_folder_is_copied_whole_with_small_files_together_and_large_ones_in_pieces(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_PIECE", 1000)
    content = {f"cases/{number}.json": os.urandom(90) for number in range(20)}
    content |= {"model.keras": os.urandom(3500), "empty": b"", "a b/ü": b"x"}
    for name, data in content.items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(data)
    (there / "secret").symlink_to("/etc/passwd")
    transport = loopback_transport(Loopback())
    assert await fetch_tree(transport, str(there), tmp_path / "here") == len(content)
    copied = {str(path.relative_to(tmp_path / "here")): path.read_bytes() for path in (tmp_path / "here").rglob("*") if path.is_file()}  # fmt: skip
    assert copied == content
    assert transport.requests < 10


async def test_a_cut_while_a_large_file_is_fetched_costs_a_piece_of_it(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_PIECE", 1000)
    model = os.urandom(5000)
    (there / "model").write_bytes(model)
    link = Loopback()
    transport = loopback_transport(link)
    calls = []

    def lose_the_fourth(exchange: Exchange) -> Exchange:
        calls.append(len(exchange.stdout))
        return Exchange(returncode=None) if len(calls) == 4 else exchange

    link.spoil = lose_the_fourth
    await fetch_tree(transport, str(there), tmp_path / "here")
    assert (tmp_path / "here" / "model").read_bytes() == model
    assert (transport.requests, link.connections) == (7, 2)
    assert os.listdir(tmp_path / "here") == ["model"]


async def test_a_folder_that_is_not_there_is_told_from_an_empty_one(there: Path, tmp_path: Path) -> None:
    transport = loopback_transport(Loopback())
    assert await fetch_tree(transport, str(there), tmp_path / "here") == 0
    assert await fetch_tree(transport, str(there / "artifacts"), tmp_path / "here") is None


async def test_a_file_that_shrinks_meanwhile_is_no_copy(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (there / "model").write_bytes(b"12345")
    transport = loopback_transport(Loopback())
    read = transport.read

    async def shrunk(pieces: list[tuple[str, int, int]]) -> list[bytes | None]:
        (there / "model").write_bytes(b"1")
        return await read(pieces)

    monkeypatch.setattr(transport, "read", shrunk)
    with pytest.raises(SurveyError, match="changed while it was fetched"):
        await fetch_tree(transport, str(there), tmp_path / "here")
    assert not (tmp_path / "here" / "model").exists()


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", ""])
async def test_a_site_cannot_have_a_file_written_elsewhere(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    transport = loopback_transport(Loopback())

    async def tree(path: str) -> dict[str, int]:
        return {name: 1}

    monkeypatch.setattr(transport, "tree", tree)
    with pytest.raises(SurveyError, match="outside"):
        await fetch_tree(transport, str(there), tmp_path / "here")
    assert not (tmp_path / "here").exists()
