"""The raw record of a look: what each command printed, without what is nobody's business.

A record is made to be sent to strangers, so that it hides too much rather than too little: names of
people and of their jobs, addresses, storage URLs, job environments, and whatever looks like a secret.
The layout of each line stays, since the layout is what a record is for.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import __version__
from orchestrator.errors import UsageError
from orchestrator.store.atomic import make_directory, write_bytes

if TYPE_CHECKING:
    from orchestrator.config.site import Site
    from orchestrator.doctor.findings import Finding

__all__ = ["Redactor", "check_folder", "write_record"]

_README = """\
Raw answers of a site's commands, saved by `survey doctor --site {site} --record` (survey-orchestrator {version}).

findings.txt   what the doctor made of them
site.yaml      the site as its file has it
*.txt          one command each: its line, its return code, what it printed

Account names, addresses, storage URLs, job environments and what looks like a password or a token were
replaced by words in <angle brackets>, and names of jobs in lists whose layout is known. Host names, queue
names, paths, and names of your jobs in other lists are still there: please read the files before you send
them to anybody.
"""

# Before the patterns that look at single words: a job's environment goes as a whole.
_WHOLE: Sequence[tuple[re.Pattern[str], str]] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), "<key>"),
    # PBS: the value goes on in lines that begin with a tab; in JSON it is an object or a string.
    (re.compile(r"(Variable_List|Submit_arguments|submit_arguments)( = )[^\n]*(?:\n\t[^\n]*)*"), r"\1\2<environment>"),
    (
        re.compile(r'("(?:Variable_List|Submit_arguments)"\s*:\s*)(?:\{[^{}]*\}|"(?:[^"\\]|\\.)*")'),
        r'\1"<environment>"',
    ),
    # Grid Engine: qstat -j and XML; Slurm: scontrol and sacct.
    (re.compile(r"^(env_list|sge_o_\w+|job_args|context):.*$", re.MULTILINE), r"\1: <environment>"),
    (re.compile(r"<(JB_env_list|JB_job_args|JB_context)>.*?</\1>", re.DOTALL), r"<\1/>"),
    (re.compile(r"<(JB_owner|JB_name|JB_group|JB_account|JB_project)>[^<]*</\1>"), r"<\1>someone</\1>"),
    (re.compile(r"^(\s*(?:Command|SubmitLine|StdIn|Comment|AdminComment)=).*$", re.MULTILINE), r"\1<line>"),
    (re.compile(r"(Job_Owner|egroup|euser|Account_Name|project|Mail_Users)( = )\S+"), r"\1\2<someone>"),
    (re.compile(r'("(?:Job_Owner|egroup|euser|Account_Name|project|Mail_Users)"\s*:\s*)"[^"]*"'), r'\1"<someone>"'),
    # The list of `orchestrator.schedulers.slurm`: the job's name comes last.
    (re.compile(r"^(\d[^|\n]*(?:\|[^|\n]*){7}\|).+$", re.MULTILINE), r"\1<name>"),
)
_WORDS: Sequence[tuple[re.Pattern[str], str]] = (
    (
        re.compile(r"\b(?:postgres(?:ql)?|mysql|mariadb|redis|mongodb|amqp|sqlite|journal)(?:\+\w+)?:/?/?[^\s'\"<>]+"),
        "<storage>",
    ),
    (re.compile(r"(\w+://)[^\s/@'\"<>]*@"), r"\1<someone>@"),
    (re.compile(r"[\w.+%-]+@(?=[\w-])"), "<someone>@"),
    (
        re.compile(
            r"(?i)([\w.-]*(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key"
            r"|credential|cookie|authorization)[\w.-]*[\"']?\s*[=:]\s*)(?:bearer\s+|basic\s+)?(\"[^\"\n]*\"|'[^'\n]*'|[^\s,;&]+)"
        ),
        r"\1<secret>",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 <secret>"),
    (
        re.compile(r"\b(?:gh[a-z]_|github_pat_|glpat-|sk-|hf_|xox[a-z]-|AKIA|ASIA|AIza|ya29\.)[A-Za-z0-9_./-]{8,}"),
        "<secret>",
    ),
    (re.compile(r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"), "<secret>"),
)
_NOBODY = {"", "root"}  # names that say nothing of anybody
_LONG = re.compile(r"(?<![\w/.<-])[A-Za-z0-9+_=-]{24,}(?![\w/.>-])")


class Redactor:
    """Replaces what a record must not hold.

    Parameters
    ----------
    people : iterable of str
        Account names.
    places : iterable of str
        Home folders.
    secrets : iterable of str
        Values that are known to be nobody's business.
    """

    def __init__(self, *, people: Iterable[str] = (), places: Iterable[str] = (), secrets: Iterable[str] = ()) -> None:
        self._known: list[tuple[re.Pattern[str], str]] = [
            *(
                (re.compile(re.escape(word)), "<secret>")
                for word in sorted(set(secrets), key=len, reverse=True)
                if word
            ),
            *(
                (re.compile(rf"{re.escape(place)}(?=[/\s'\":,]|$)", re.MULTILINE), "<home>")
                for place in set(places)
                if len(place) > 1
            ),
            *((re.compile(rf"(?<!\w){re.escape(name)}(?!\w)"), "<someone>") for name in set(people) - _NOBODY),
        ]

    def __call__(self, text: str) -> str:
        """``text`` without them."""
        for pattern, words in (*self._known, *_WHOLE, *_WORDS):
            text = pattern.sub(words, text)
        return _LONG.sub(lambda match: "<secret>" if _is_random(match[0]) else match[0], text)


def _is_random(word: str) -> bool:
    """Whether a long word is none that a person or a scheduler would write: hexadecimal, or letters and digits mixed."""
    if re.fullmatch(r"[0-9a-fA-F]{32,}", word):
        return True
    changes = sum(one.isdigit() != other.isdigit() for one, other in itertools.pairwise(word))
    return changes >= 6 and any(letter.isalpha() for letter in word)


def check_folder(folder: Path) -> None:
    """See that a record can go to ``folder``.

    Raises
    ------
    UsageError
        If something is there already: records are not mixed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there and not empty", hint="Name a new folder for the record.")


def write_record(
    folder: Path,
    *,
    site: Site,
    findings: Iterable[Finding],
    answers: Mapping[str, Mapping[str, Any] | None],
    redact: Redactor,
) -> int:
    """Write the record to ``folder``; returns how many answers it holds.

    Raises
    ------
    Paused, UsageError, SurveyError
        As `orchestrator.store.atomic.write_bytes`.
    """
    make_directory(folder)
    lines = [f"{finding.level:5} {finding.subject}: {finding.text}" for finding in findings]
    _write(folder / "README.txt", _README.format(site=site.name, version=__version__))
    _write(folder / "findings.txt", redact("\n".join(lines) + "\n"))
    _write(folder / "site.yaml", redact(site.to_yaml()))
    count = 0
    for name, answer in answers.items():
        if answer is None:
            text = "no answer at all\n"
        else:
            code = "no answer in time" if answer["returncode"] is None else f"return code {answer['returncode']}"
            text = (
                f"$ {shlex.join(answer['argv'])}\n[{code}, {answer['seconds']:.1f} s]\n"
                f"--- stdout\n{answer['stdout']}\n--- stderr\n{answer['stderr']}\n"
            )
        _write(folder / f"{_file_name(name)}.txt", redact(text))
        count += 1
    _write(folder / "index.json", json.dumps({"version": 1, "answers": [_file_name(name) for name in answers]}) + "\n")
    return count


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()


def _write(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8", "replace"))
