"""CPU seconds of ``survey --help`` above those of ``python -c pass``.

    python benchmarks/startup.py [ROUNDS]

The two take turns, and the smallest of each counts: a busy machine slows both alike.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys

GOAL = 0.15
HELP = "import sys; from orchestrator.cli.app import main; sys.exit(main(['--help']))"


def cpu_seconds(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    empty, helped = [], []
    for _ in range(rounds):
        empty.append(cpu_seconds("pass"))
        helped.append(cpu_seconds(HELP))
    above = min(helped) - min(empty)
    print(f"python -c pass   {min(empty):.3f} s")
    print(f"survey --help    {min(helped):.3f} s")
    print(f"above            {above:.3f} s   (goal {GOAL} s: {'met' if above <= GOAL else 'missed'})")
    print(f"ratio            {min(helped) / min(empty):.1f}")


if __name__ == "__main__":
    main()
