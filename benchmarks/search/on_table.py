"""The published experiment on a table of real trainings: `bo` at N = 1, 2, 4, 8 against random search, 50 trials each.

    python benchmarks/search/on_table.py                            # three repeats, as published
    python benchmarks/search/on_table.py --repeats 30               # for the statistics
    python benchmarks/search/on_table.py --repeats 30 --samplers tpe cmaes
    python benchmarks/search/on_table.py --draw-only --figures docs/figures --page docs/published-experiment.md
    python benchmarks/search/on_table.py --task metastasis          # the other table

Studies run in virtual time with the driver that users run; jobs wait in a queue. A file goes on where it was stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from page import fill
from protocol import one_thread
from table_report import figures, report
from table_searches import SAMPLERS, Searches, Setting, begun_with, load

from orchestrator.config.study import Study
from orchestrator.errors import SurveyError
from orchestrator.samplers import make_sampler

ROOT = Path(__file__).parents[2]
PUBLISHED = 3


def main() -> None:
    one_thread()
    parser = argparse.ArgumentParser(
        description="Compare on a table of trainings", epilog="see the module's first lines"
    )
    parser.add_argument(
        "--task", default="aneurysm", help="names examples/TASK/study.yaml and benchmarks/tables/TASK-*"
    )
    parser.add_argument("--samplers", nargs="+", default=["bo", "random"], choices=[*SAMPLERS])
    parser.add_argument("--parallel", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=PUBLISHED)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--out", type=Path, help="JSON lines; benchmarks/search/on-TASK.jsonl unless given")
    parser.add_argument(
        "--rows", type=int, help="the table's first trainings only; as many as --out began with, or all"
    )
    parser.add_argument("--draw-only", action="store_true", help="run nothing")
    parser.add_argument("--figures", type=Path, help="write figures into this folder")
    parser.add_argument("--page", type=Path, help="write the tables into this page, between <!-- TASK --> and its end")
    given = parser.parse_args()
    study = ROOT / "examples" / given.task / "study.yaml"
    tables = sorted((ROOT / "benchmarks" / "tables").glob(f"{given.task}-*.jsonl"))
    if not study.exists() or len(tables) != 1:
        parser.error(
            f"--task {given.task}: needs {study} and one table of it in benchmarks/tables, found {len(tables)}"
        )
    path = given.out or Path(__file__).parent / f"on-{given.task}.jsonl"
    try:
        rows = begun_with(path) if given.rows is None else given.rows
        searches = Searches(Setting(study=study, table=tables[0], trials=given.trials, rows=rows))
        if not given.draw_only:
            for name in given.samplers:
                make_sampler(SAMPLERS[name][0], seed=0)  # says at once what is not installed
            searches.run(
                path,
                samplers=given.samplers,
                parallel=given.parallel,
                repeats=given.repeats,
                said=lambda line: print(line, flush=True),
            )
        done = load(path, searches.about)
    except (SurveyError, ValueError) as error:
        hint = getattr(error, "hint", "")
        parser.error(f"{error}; {hint}" if hint else str(error))
    if not done:
        parser.error(f"{path}: holds no search yet; leave --draw-only out")
    goal = Study.load(study).targets[0]
    fit = f"{searches.about['rows']} trainings, interpolated with a rank correlation of {searches.fit:.2f}"
    text = f"{tables[0].name}: {fit}.\n\n{report(done, goal.metric, goal.direction, published=PUBLISHED)}"
    print(f"\n{text}")
    if given.figures:
        for written in figures(done, goal.metric, goal.direction, given.figures, given.task, published=PUBLISHED):
            print(written)
    if given.page:
        fill(given.page, given.task, text)


if __name__ == "__main__":
    main()
