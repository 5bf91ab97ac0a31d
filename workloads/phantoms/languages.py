"""Two made-up languages and a text in both: what a translator is tried on where no corpus is at hand.

The second language is no cipher of the first. Its verb comes last, its adjective after its noun; articles, adjectives
and verbs agree with the gender of a noun, which the first language does not show; and the tense is a word of its own in
the first and part of the verb in the second. So a dictionary, word by word, does not translate.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

__all__ = ["Languages", "make_languages", "make_pairs"]

_SOURCE = [a + b for a, b in itertools.product("bdgklmnprst", "aeiou")]
_TARGET = [a + b for a, b in itertools.product(("ch", "f", "h", "j", "qu", "v", "w", "x", "z"), ("a", "e", "i", "o"))]
_GENDERS = ("um", "is")
_TENSES = ("", "ru")
_SIZES = {"noun": 14, "adjective": 6, "verb": 8, "adverb": 4, "article": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Languages:
    """The words of both languages.

    Attributes
    ----------
    words : mapping
        Kind of word to pairs of a word and its stem in the second language.
    genders : tuple of int
        0 or 1, of each noun.
    future : str
        The first language's word for the future.
    """

    words: dict[str, tuple[tuple[str, str], ...]]
    genders: tuple[int, ...]
    future: str


def make_languages(rng: np.random.Generator) -> Languages:
    """Invent the words; no two are the same."""
    total = sum(_SIZES.values())
    ours = [a + b for a, b in itertools.product(_SOURCE, _SOURCE)]
    theirs = [a + b for a, b in itertools.product(_TARGET, _TARGET)]
    drawn = [
        [pool[index] for index in rng.choice(len(pool), size, replace=False)]
        for pool, size in ((ours, total + 1), (theirs, total))
    ]
    pairs = iter(zip(*drawn, strict=False))
    words = {kind: tuple(itertools.islice(pairs, size)) for kind, size in _SIZES.items()}
    return Languages(
        words=words, genders=tuple(rng.permutation(np.arange(_SIZES["noun"]) % 2).tolist()), future=drawn[0][-1]
    )


def make_pairs(rng: np.random.Generator, languages: Languages, count: int) -> tuple[tuple[str, str], ...]:
    """``count`` sentences of 5 to 9 words with their translations."""
    return tuple(_pair(rng, languages) for _ in range(count))


def _pair(rng: np.random.Generator, languages: Languages) -> tuple[str, str]:
    def draw(kind: str) -> tuple[str, str]:
        words = languages.words[kind]
        return words[rng.integers(len(words))]

    def noun_phrase() -> tuple[list[str], list[str], str]:
        number = int(rng.integers(_SIZES["noun"]))
        noun, article = languages.words["noun"][number], draw("article")
        ending = _GENDERS[languages.genders[number]]
        ours, theirs = [article[0]], [article[1] + ending, noun[1]]
        if rng.random() < 0.5:
            adjective = draw("adjective")
            ours.append(adjective[0])
            theirs.append(adjective[1] + ending)
        return [*ours, noun[0]], theirs, ending

    subject, their_subject, ending = noun_phrase()
    thing, their_thing, _ = noun_phrase()
    verb, later = draw("verb"), bool(rng.random() < 0.5)
    adverb = [draw("adverb")] if rng.random() < 0.5 else []
    source = [*(word[0] for word in adverb), *subject, *([languages.future] if later else []), verb[0], *thing]
    target = [*their_subject, *their_thing, *(word[1] for word in adverb), verb[1] + _TENSES[later] + ending]
    return " ".join(source), " ".join(target)
