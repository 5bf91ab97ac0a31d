"""The commented study.yaml that ``survey init`` writes."""

from __future__ import annotations

from orchestrator.config.fields import check_name
from orchestrator.config.loading import did_you_mean, dump_data
from orchestrator.errors import UsageError

__all__ = ["EXAMPLES", "SCHEMA_FILE", "study_template"]

SCHEMA_FILE = "study.schema.json"

_HEAD = """\
# yaml-language-server: $schema={schema}
# Editors that know YAML check this file against the schema named above (written by `survey schema`).
#
#   survey check study.yaml     check it and show the job script; nothing is submitted
#   survey run study.yaml       run it, or go on with it after any interruption
#   survey status               how it is going
#   survey report               all of it in one HTML file
schema_version: 1
{name}                          # letters, digits, . _ -
"""

_DEFAULT = """\

# What is searched for: a number that each trial reports. For several, write `objectives:` and a list.
objective: {{metric: accuracy, direction: maximize}}
# constraints: [{{metric: memory_mb, at_most: 16000}}]    # a trial beyond it is never the best
# metrics: [train_seconds]      # further numbers to keep

# The parameters. A bare value is fixed: every trial gets it.
space:
  learning_rate: {{type: float, low: 1e-4, high: 1e-1, log: true}}
  layers: {{type: int, low: 1, high: 5}}
  dropout: {{type: float, low: 0, high: 0.5, step: 0.05}}
  optimizer: {{type: categorical, choices: [sgd, adam]}}
  momentum: {{type: float, low: 0, high: 0.99, when: {{optimizer: sgd}}}}   # exists with sgd only
  epochs: 20
# where: ["layers * learning_rate < 0.2"]               # conditions that every trial meets

# What chooses the parameters: bo (Bayesian optimisation), random, grid, tpe, cmaes, gp, qmc, skopt;
# nsga2 for several objectives.
sampler: {{name: bo, seed: 0}}
trials: 50                      # in all, failed ones included; may be raised later
parallel: 4                     # in flight at a time

# What one trial runs, in the folder of this file. It reads its parameters from the JSON file that
# $SURVEY_PARAMS names and writes {{"metrics": {{"accuracy": 0.9}}}} to $SURVEY_RESULT. In Python:
#
#   from orchestrator import trial
#   p = trial.params()
#   trial.finish(accuracy=train(p["learning_rate"], p["layers"]))
command: [python, train.py]

resources: {{gpus: 1, cpus: 4, memory: 16GB, walltime: "02:00:00"}}    # of one trial
# environment: {{OMP_NUM_THREADS: 4}}

# What the jobs want of the cluster (`survey sites` lists those that are known).
# batch:
#   queue: gpu                  # default: the cheapest that fits
#   group: my-project           # who is charged
#   modules: [cuda/12.2]
#   setup: ["source ~/venv/bin/activate"]

# For a program that cannot be changed: read the metric from what it prints, or from a file of its own.
# read:
#   - {{metric: accuracy, stdout: 'accuracy: ([-+.0-9e]+)'}}
#   - {{metric: accuracy, json: 'out.json:test.accuracy'}}
#   - {{metric: accuracy, csv: 'log.csv:accuracy'}}

# Further attempts of a trial, by how the last one ended.
# retry: {{node-failure: 3, preempted: 5, lost: 2, timeout: 5, out-of-memory: 2, failed: 0}}
# walltime_warning: {{ahead: 5m}}  # when the program is told to stop; longer than an epoch
# failures: {{stop_after: 5}}     # pause once five trials in a row have failed
# pruner: asha                  # pause trials that report little of promise: median, hyperband, asha
# keep: {{best: 3}}               # best trials whose artifacts are kept
# storage: postgresql://me:${{DB_PASSWORD}}@host/studies    # default: study.db in the study's folder
"""

_DIGITS = """\
description: A small perceptron on scikit-learn's handwritten digits; a second or two per trial, no GPU.

# What is searched for: the accuracy that each trial reports on images it was not trained on.
objective: {{metric: accuracy, direction: maximize}}
metrics: [train_seconds]        # further numbers to keep

# The parameters. `log: true` searches orders of magnitude.
space:
  learning_rate: {{type: float, low: 1e-4, high: 1.0, log: true}}
  hidden_units: {{type: int, low: 2, high: 128, log: true}}
  alpha: {{type: float, low: 1e-6, high: 10, log: true}}
  batch_size: {{type: int, low: 8, high: 256, log: true}}
  activation: {{type: categorical, choices: [relu, tanh, logistic]}}
  solver: {{type: categorical, choices: [sgd, adam]}}

# Bayesian optimisation. Compare it with `random` on the same seed.
sampler: {{name: bo, seed: 1}}
trials: 20                      # in all, failed ones included; raise it and run again to go on
parallel: 2                     # in flight at a time

command: [python, -m, workloads, digits]
resources: {{cpus: 1, walltime: 5m}}
"""

EXAMPLES = {"digits": _DIGITS}
"""Studies that run as they are, by name."""


def study_template(name: str, *, example: str = "", schema: str = SCHEMA_FILE) -> str:
    """Text of a study.yaml to begin with.

    Parameters
    ----------
    name : str
        The study's name.
    example : str
        One of `EXAMPLES`; empty for the general one, whose program is still to be written.
    schema : str
        Where the file's JSON Schema is, as editors should look for it.

    Raises
    ------
    UsageError
        If there is no such example, or the name is none.
    """
    if example and example not in EXAMPLES:
        near = did_you_mean(example, EXAMPLES)
        raise UsageError(f'there is no example "{example}"', hint=near or f"The examples are {', '.join(EXAMPLES)}.")
    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(f"the study's name {error}") from None
    body = EXAMPLES[example] if example else _DEFAULT
    return (_HEAD + body).format(name=dump_data({"name": name}).strip(), schema=schema)
