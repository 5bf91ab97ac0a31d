"""A plain survey: every combination of two parameters, a job each, four at a time, no optimiser.

    python examples/survey_plain/survey.py [SITE]

Run it again after an interruption and it goes on; run it again after its end and it only prints.
"""

import sys
from pathlib import Path

from orchestrator.jobs import product, survey

command, here = [sys.executable, "heat.py"], Path(__file__).resolve().parent

with survey("runs", "heat", site=sys.argv[1] if len(sys.argv) > 1 else "local", limit=4) as s:
    rods = product(diffusivity=[1e-4, 2e-5], cells=[20, 40, 80])
    jobs = s.prepare("heat", command=command, workdir=here, params=rods, metrics=["half_time"])
    s.submit(*jobs)
    for job in s.sync(*jobs):
        print(job.id, dict(job.params), job.outcome.verdict, dict(job.outcome.metrics))
