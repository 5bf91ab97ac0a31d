"""Translation by a recurrent encoder-decoder with attention under synchronous data parallelism: how much several devices gain.

The training of the multi-node studies on machine translation, small: its time is what `survey scaling` measures, and its
BLEU must not change with the number of devices.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from workloads.data.parallel_text import BEGIN, END, PADDING, Vocabulary, read_text, write_text
from workloads.evaluation.overview import NAME, Panel, write_overview
from workloads.metrics.translation import Bleu, bleu
from workloads.models.translator import attention_of, translator
from workloads.parameters import Parameter
from workloads.phantoms.languages import make_languages, make_pairs
from workloads.training.loop import OPTIMIZERS, Arrays
from workloads.trials import data_parallel
from workloads.trials.data_parallel import AT_ONCE, Forward, ScalingTask, forward_of

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run"]

SUMMARY = "translation: recurrent encoder-decoder with attention under data parallelism, BLEU and time (TensorFlow)"
MOST_WORDS = 20_000  # of a language; the rarer ones are one unknown word
SHOWN = 3  # sentences in the overview

PARAMETERS = (
    Parameter(name="units", default=32, low=8, high=256, log=True, meaning="of each direction of the encoder"),
    Parameter(name="embedding", default=32, low=8, high=128, log=True, meaning="dimensions of a word"),
    Parameter(name="layers", default=1, low=1, high=3, meaning="recurrent layers of encoder and decoder"),
    Parameter(
        name="dropout", default=0.1, low=0.0, high=0.5, meaning="share of features dropped before the last layer"
    ),
    Parameter(name="smoothing", default=0.05, low=0.0, high=0.3, meaning="of the labels"),
    Parameter(name="learning_rate", default=0.01, low=1e-5, high=1.0, log=True, meaning="at the start; falls to 0"),
    Parameter(name="optimizer", default="adam", choices=OPTIMIZERS, meaning="adam, or sgd with Nesterov momentum"),
    Parameter(name="momentum", default=0.9, low=0.0, high=0.99, meaning="of sgd; beta_1 of adam"),
    Parameter(name="batch_size", default=32, low=8, high=256, log=True, meaning="sentences of one step"),
    Parameter(name="weight_decay", default=1e-4, low=1e-6, high=0.1, log=True, meaning="decoupled"),
)


class _Translation:
    packages: tuple[str, ...] = ("sacrebleu",)

    def __init__(self, folder: Path) -> None:
        text = read_text(folder)
        self.checksum = text.checksum
        self._pairs, self._held_out = text.training, text.validation
        self._source = Vocabulary.of((pair[0] for pair in text.training), MOST_WORDS)
        self._target = Vocabulary.of((pair[1] for pair in text.training), MOST_WORDS)
        # One more for the sign of begin or end.
        self._lengths = tuple(max(len(pair[side].split()) for pair in text.training) + 1 for side in (0, 1))

    @property
    def training(self) -> Arrays:
        source = self._source.numbers([pair[0] for pair in self._pairs], self._lengths[0])
        target = self._target.numbers([pair[1] for pair in self._pairs], self._lengths[1] - 1)
        begun = np.pad(target, ((0, 0), (1, 0)), constant_values=BEGIN)
        ended = np.pad(target, ((0, 0), (0, 1)), constant_values=PADDING)
        ended[np.arange(len(target)), np.count_nonzero(target != PADDING, axis=1)] = END
        answers = np.where(ended == PADDING, -1, ended)
        return np.concatenate([source, begun], axis=1).astype(np.float32), answers.astype(np.float32)

    def network(self, settings: Mapping[str, Any]) -> Any:
        return translator(
            words=(len(self._source.words), len(self._target.words)),
            lengths=(self._lengths[0], self._lengths[1]),
            **{name: settings[name] for name in ("units", "embedding", "layers", "dropout")},
        )

    def _answer(self, forward: Forward) -> Any:
        """Translate the validation sentences, each next word the likeliest: all inputs, as they are at the end."""
        source = self._source.numbers([pair[0] for pair in self._held_out], self._lengths[0])
        known = self._lengths[0] + 1
        inputs = np.zeros((len(source), sum(self._lengths)), dtype=np.float32)
        inputs[:, : known - 1], inputs[:, known - 1] = source, BEGIN
        # A part at a time: what is given for each place is as wide as the vocabulary.
        for start in range(0, len(inputs), AT_ONCE):
            part = inputs[start : start + AT_ONCE]
            for place in range(self._lengths[1] - 1):
                part[:, known + place] = forward(part)[:, place].argmax(axis=-1)
                if np.all(np.any(part[:, known:] == END, axis=1)):
                    break
        return inputs

    def _translations(self, inputs: Any) -> list[str]:
        return [self._target.sentence(row) for row in inputs[:, self._lengths[0] + 1 :].astype(int).tolist()]

    def _bleu(self, translations: list[str]) -> Bleu:
        return bleu(translations, [pair[1] for pair in self._held_out])

    def evaluate(self, forward: Forward) -> Mapping[str, float]:
        translations = self._translations(self._answer(forward))
        right = [found == pair[1] for found, pair in zip(translations, self._held_out, strict=True)]
        return {"bleu": self._bleu(translations).score, "right": float(np.mean(right))}

    def write(self, model: Any, forward: Forward, folder: Path) -> Mapping[str, Any]:
        inputs = self._answer(forward)
        translations = self._translations(inputs)
        score = self._bleu(translations)
        (folder / "translations.txt").write_text("".join(f"{line}\n" for line in translations), encoding="utf-8")
        attention = forward_of(attention_of(model))(inputs[:SHOWN])
        panels = []
        for weights, (source, reference), found in zip(attention, self._held_out, translations, strict=False):
            image = weights[: len(found.split()) + 1, : len(source.split())]
            lines = [textwrap.fill(line, 32) for line in (source, f"reference: {reference}", f"found: {found}")]
            panels.append(Panel(title="\n".join(lines), image=image, heat=True, limits=(0, 1)))
        title = f"BLEU {score.score:.1f}; attention of the found words (rows) to those of the source (columns)"
        write_overview(folder / NAME, [panels], title=title)
        return {"bleu_signature": score.signature, "brevity": round(score.brevity, 4)}


TASK = ScalingTask(parameters=PARAMETERS, objective="bleu", read=_Translation, epochs=12)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have."""
    data_parallel.add_arguments(TASK, parser)


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one translator and report it, as in `workloads.trials.data_parallel.run`."""
    data_parallel.run(TASK, options, given)


def add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of the phantoms may have."""
    parser.add_argument("--train", type=int, default=800, help="sentences to train on (default: %(default)s)")
    parser.add_argument("--validation", type=int, default=200, help="and to validate on (default: %(default)s)")


def make_phantoms(options: argparse.Namespace) -> None:
    """Write a text in two made-up languages to ``options.out``."""
    languages = make_languages(np.random.default_rng([options.seed, 0]))
    parts = [
        make_pairs(np.random.default_rng([options.seed, part]), languages, count)
        for part, count in enumerate((options.train, options.validation), start=1)
    ]
    write_text(options.out, *parts)
    print(f"{options.out}: {options.train} + {options.validation} sentences in two languages")  # noqa: T201 - this verb's answer
