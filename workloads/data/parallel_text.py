"""Sentences in two languages, line by line: ``train.source``, ``train.target``, ``validation.source``, ``validation.target``."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workloads.errors import WorkloadError

__all__ = ["BEGIN", "END", "PADDING", "UNKNOWN", "ParallelText", "Vocabulary", "read_text", "write_text"]

PADDING, BEGIN, END, UNKNOWN = range(4)
_SPECIAL = ("<padding>", "<begin>", "<end>", "<unknown>")
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words of a language by number; the first four stand for no word."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, sentences: Iterable[str], most: int) -> Vocabulary:
        """The ``most`` most frequent words of ``sentences``, the frequent ones first."""
        counts = Counter(word for sentence in sentences for word in sentence.split())
        ordered = sorted(counts, key=lambda word: (-counts[word], word))
        return cls((*_SPECIAL, *ordered[:most]))

    def numbers(self, sentences: Sequence[str], length: int) -> NDArray[np.int64]:
        """Numbers of the sentences' words, (sentences, ``length``): what is longer is cut, what is shorter is padded."""
        known = {word: number for number, word in enumerate(self.words)}
        table = np.full((len(sentences), length), PADDING)
        for row, sentence in zip(table, sentences, strict=True):
            found = [known.get(word, UNKNOWN) for word in sentence.split()[:length]]
            row[: len(found)] = found
        return table

    def sentence(self, numbers: Sequence[int]) -> str:
        """The words of ``numbers`` up to the first end."""
        words = []
        for number in numbers:
            if number in {END, PADDING}:
                break
            words.append(self.words[number])
        return " ".join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelText:
    """Sentences and their translations: to train on, and to validate with."""

    training: Pairs
    validation: Pairs
    checksum: str


def read_text(folder: Path) -> ParallelText:
    """Read the four files of ``folder``: UTF-8, a sentence a line, its words separated by blanks.

    Raises
    ------
    WorkloadError
        If one cannot be read, or two that belong together do not fit.
    """
    digest = hashlib.sha256()
    parts = {part: _pairs(folder, part, digest) for part in ("train", "validation")}
    return ParallelText(training=parts["train"], validation=parts["validation"], checksum=digest.hexdigest())


def write_text(folder: Path, training: Pairs, validation: Pairs) -> None:
    """Write the four files into ``folder``.

    Raises
    ------
    WorkloadError
        If one is there already.
    """
    if (folder / "train.source").exists():
        raise WorkloadError(f"{folder} already holds a data set", hint="choose another folder, or remove it first")
    folder.mkdir(parents=True, exist_ok=True)
    for part, pairs in {"train": training, "validation": validation}.items():
        for place, side in enumerate(("source", "target")):
            (folder / f"{part}.{side}").write_text("".join(f"{pair[place]}\n" for pair in pairs), encoding="utf-8")


def _pairs(folder: Path, part: str, digest: hashlib._Hash) -> Pairs:
    paths = [folder / f"{part}.{side}" for side in ("source", "target")]
    columns = []
    for path in paths:
        try:
            content = path.read_bytes()
            lines = content.decode("utf-8").splitlines()
        except FileNotFoundError:
            raise WorkloadError(
                f"{path}: no such file", hint=f"python -m workloads phantom scaling-seq2seq --out {folder} makes it"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise WorkloadError(f"{path} cannot be read: {error}", hint="it has to be text in UTF-8") from error
        empty = next((number for number, line in enumerate(lines, start=1) if not line.split()), None)
        if empty or not lines:
            raise WorkloadError(
                f"{path}: line {empty or 1} has no word", hint="take the sentence out of both languages"
            )
        digest.update(content)
        columns.append(lines)
    if len(columns[0]) != len(columns[1]):
        raise WorkloadError(
            f"{paths[0]} has {len(columns[0])} lines and {paths[1].name} {len(columns[1])}",
            hint="line n of one has to be the translation of line n of the other",
        )
    return tuple(zip(*columns, strict=True))
