"""Compare search engines on paired seeds: JSON lines, then tables of relative regrets with intervals, and a figure.

    python benchmarks/search/run.py --small                                   # half a minute
    python benchmarks/search/run.py --set report --seeds 15                   # the table in docs/search.md
    python benchmarks/search/run.py --set report --draw-only --page docs/search.md --figure docs/figures/search.svg

What is in the output file already is not run again, so that an interrupted comparison goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import optuna
from engines import BASELINE, ENGINES, missing
from page import fill
from problems import DEVELOPMENT, REPORT, SMALL
from protocol import one_thread
from records import load, run
from tables import figure, report

SETS = {"small": SMALL, "development": DEVELOPMENT, "report": REPORT}
# Seeds that the engine was developed on are below; the report's are its own.
FIRST_SEED = {"small": 0, "development": 0, "report": 1000}


def main() -> None:
    one_thread()
    parser = argparse.ArgumentParser(description="Compare search engines", epilog="see the module's first lines")
    parser.add_argument("--engines", nargs="+", default=[*ENGINES], choices=[*ENGINES])
    parser.add_argument("--set", default="development", choices=SETS, help="problems; report has seeds of its own, too")
    parser.add_argument("--problems", nargs="+", help="some of the set only")
    parser.add_argument("--seeds", type=int, default=15, help="how many")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--out", type=Path, help="JSON lines; search-<set>.jsonl unless given")
    parser.add_argument("--draw-only", action="store_true", help="tables and figure of what is there already")
    parser.add_argument("--figure", type=Path, help="write the figure there (.svg or .png)")
    parser.add_argument("--page", type=Path, help="write the tables into this page, between <!-- SET --> and its end")
    parser.add_argument("--small", action="store_true", help="four problems, one seed, 20 trials, fast engines")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if given.small:
        given.set, given.seeds, given.trials, given.engines = "small", 1, 20, ["bo", BASELINE, "random"]
    problems = SETS[given.set]
    unknown = set(given.problems or ()) - set(problems)
    if unknown:
        parser.error(f"the set {given.set} has no problem {', '.join(sorted(unknown))}; it has {', '.join(problems)}")
    if given.problems:
        problems = {name: problems[name] for name in given.problems}
    engines = list(dict.fromkeys([*given.engines, BASELINE]))
    for name in [name for name in engines if missing(name) and not given.draw_only]:
        print(f"{name} is left out: pip install {' '.join(missing(name))}")
        engines.remove(name)
    path = given.out or Path(f"search-{given.set}.jsonl")
    if given.draw_only:
        done = load(path, given.trials)
        engines = [name for name in ENGINES if any(key[0] == name for key in done)]
    else:
        first = FIRST_SEED[given.set]
        done = run(
            path,
            engines=engines,
            problems=list(problems),
            workers=given.workers,
            seeds=range(first, first + given.seeds),
            trials=given.trials,
            said=lambda line: print(line, flush=True),
        )
    text = report(done, engines, problems, given.workers, BASELINE)
    print(f"\n{text}")
    if given.page:
        fill(given.page, given.set, text)
    if given.figure:
        figure(done, engines, problems, given.workers, BASELINE, given.figure)


if __name__ == "__main__":
    main()
