"""BLEU of translations, by sacrebleu, whose signature says which of its many variants a number is (Post 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workloads.errors import WorkloadError

__all__ = ["Bleu", "bleu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bleu:
    """BLEU of a corpus.

    Attributes
    ----------
    score : float
        0 to 100 (Papineni et al. 2002), over n-grams of up to four words.
    brevity : float
        Brevity penalty, 0 to 1; 1 where translations are not shorter than their references.
    signature : str
        The library's own: what is to be told with the number.
    """

    score: float
    brevity: float
    signature: str


def bleu(translations: Sequence[str], references: Sequence[str]) -> Bleu:
    """BLEU of ``translations`` against one reference each; words are what blanks separate.

    Raises
    ------
    WorkloadError
        If sacrebleu is not installed.
    ValueError
        If there is nothing to compare, or not one reference for each translation.
    """
    if not references or len(translations) != len(references):
        raise ValueError(f"{len(translations)} translations for {len(references)} references")
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        raise WorkloadError(
            "sacrebleu is not installed", hint="pip install 'survey-orchestrator[workloads-cpu]'"
        ) from None
    metric = BLEU(tokenize="none", force=True)  # force: no warning that the words are separated already
    score = metric.corpus_score(list(translations), [list(references)])
    return Bleu(score=float(score.score), brevity=float(score.bp), signature=str(metric.get_signature()))
