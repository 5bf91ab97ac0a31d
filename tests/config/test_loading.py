from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from study_files import Write, writer

from orchestrator.config.loading import LARGEST_FILE, Position, did_you_mean, dump_data, load_data
from orchestrator.errors import ConfigError


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    return writer(tmp_path, monkeypatch)


def loaded(write: Write, text: str) -> Any:
    return load_data(write(text))[0]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-3", -3),
        ("1.", 1.0),
        ("-.inf", float("-inf")),
        ("true", True),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("012", "012"),
        ("-0", "-0"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("1:30:00", "1:30:00"),
        ("2024-01-01", "2024-01-01"),
        ('"1e-4"', "1e-4"),
        ("'true'", "true"),
        ("=", "="),
    ],
)
def test_a_scalar_is_read_by_yaml_1_2(write: Write, written: str, value: object) -> None:
    found = loaded(write, f"a: {written}")["a"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_always_text(write: Write) -> None:
    assert loaded(write, "on: 1\n12: 2\ntrue: 3\nnull: 4\n") == {"on": 1, "12": 2, "true": 3, "null": 4}


def test_every_key_and_item_has_its_place(write: Write) -> None:
    _, lines = load_data(write("a:\n  b:\n    - 1\n    - {c: 2}\n"))
    assert lines.positions[("a", "b", 1, "c")] == Position(4, 8)
    assert lines.where(("a", "b", 0)) == "study.yaml:3"
    assert lines.where(("a", "missing", "below")) == "study.yaml:1"
    assert lines.where(("missing",)) == "study.yaml"


def test_a_merged_mapping_gives_what_is_not_written_out(write: Write) -> None:
    text = "base: &base {x: 1, y: 2}\nb: &b {y: 5, z: 6}\none: {y: 3, <<: *base}\ntwo: {<<: [*b, *base]}\n"
    data, lines = load_data(write(text))
    assert data["one"] == {"x": 1, "y": 3}
    assert data["two"] == {"x": 1, "y": 5, "z": 6}
    assert lines.line(("one", "y")) == 3


def test_a_duplicate_key_is_refused_with_both_lines(write: Write) -> None:
    with pytest.raises(ConfigError, match=r'study\.yaml:3:1: duplicate key "a": it is already on line 1'):
        loaded(write, "a: 1\nb: 2\na: 3\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"study\.yaml: empty"),
        ("# only a comment\n", r"study\.yaml: empty"),
        ("- 1\n", r"study\.yaml:1: expected a mapping .* found list"),
        ("a:\n\tb: 1\n", r"study\.yaml:2:1: a tab in the indentation"),
        ("a: b: c\n", r"study\.yaml:1:5: .*mapping values"),
        ("a: @x\n", r"study\.yaml:1:4: .*\n.*quotes"),
        ("a: [1, 2\nb: 3\n", r"study\.yaml:2:\d+: .*from line 1"),
        ("a: 1\n---\nb: 2\n", r"study\.yaml:2:1: a second document"),
        ("a: &x [*x]\n", r"study\.yaml:1:4: this anchor .* contains itself"),
        ("a: *nobody\n", r"study\.yaml:1:4: .*undefined alias"),
        ("a: !!python/object/apply:os.system [ls]\n", r"study\.yaml:1:4: tags .* are not supported"),
        ("a: !!binary aGk=\n", r"study\.yaml:1:4: tags"),
        ("? [a, b]\n: 1\n", r"study\.yaml:1:3: a key must be plain text"),
        ("a: {<<: 3}\n", r"study\.yaml:1:9: <<: takes a mapping"),
        ("a: 1\nb: \x07\n", r"study\.yaml:2:4: control character #x0007"),
    ],
)
def test_what_is_no_good_yaml_is_refused_with_its_place(write: Write, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        loaded(write, text)


def test_a_bomb_of_aliases_is_refused(write: Write) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(ConfigError, match="more than 100000 values"):
        loaded(write, "\n".join(levels))


def test_what_is_nested_without_end_is_refused(write: Write) -> None:
    with pytest.raises(ConfigError, match="nested too deeply"):
        loaded(write, "a: " + "[" * 5000 + "]" * 5000)


def test_a_file_that_is_too_large_is_refused_unread(write: Write) -> None:
    with pytest.raises(ConfigError, match="larger than 512 KiB"):
        loaded(write, "a: 1\n" + "#" * LARGEST_FILE)


def test_bytes_that_are_not_utf8_are_named_with_their_place(write: Write) -> None:
    path = write("")
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"study\.yaml:2:7: byte 0xe9 is not UTF-8"):
        load_data(path)


def test_a_byte_order_mark_does_no_harm(write: Write) -> None:
    path = write("")
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert load_data(path)[0] == {"a": 1}


def test_a_missing_file_is_answered_with_its_neighbour(write: Write) -> None:
    write("a: 1")
    with pytest.raises(ConfigError, match=r'stduy\.yaml: no such study file\n  Did you mean "study\.yaml"\?'):
        load_data(Path("stduy.yaml"), kind="study")


def test_a_folder_is_answered_with_the_file_in_it(write: Write) -> None:
    write("a: 1")
    with pytest.raises(ConfigError, match=r"a folder, not a study file\n  Did you mean study\.yaml\?"):
        load_data(Path(), kind="study")


def test_what_is_no_regular_file_is_not_read() -> None:
    with pytest.raises(ConfigError, match="not a regular file"):
        load_data(Path("/dev/zero"))


@pytest.mark.parametrize(
    "value",
    ["1e-4", "012", "true", "no", "", "~", "1:30", "-0", "a: b", "two\nlines", "2024-01-01", " x", 1e-05, 1e22, 3],
)
def test_dumped_data_is_read_back_the_same(write: Write, value: object) -> None:
    data = {"a": value, "<<": [value], "12": {"x": None}}
    found = loaded(write, dump_data(data))
    assert found == data
    assert type(found["a"]) is type(value)


def test_dumped_data_means_the_same_to_other_yaml_readers() -> None:
    data = {"a": "no", "b": "012", "c": "1:30:00", "d": [True, None, 0.5]}
    assert yaml.safe_load(dump_data(data)) == data


def test_a_near_word_is_meant_whatever_its_case() -> None:
    assert did_you_mean("HIHG", ["low", "high"]) == 'did you mean "high"?'
    assert did_you_mean("zzz", ["low", "high"]) == ""
