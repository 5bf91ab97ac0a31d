"""The tests' Slurm by hand: ``PYTHONPATH=tests python tests/system/slurm/slurm_by_hand.py up [--no-accounting] [--min-job-age S] | down``."""

from __future__ import annotations

import argparse
import sys

from slurm_cluster import CannotProvide, Cluster, Settings


def main() -> None:
    """Bring the cluster up or down, and say how to reach it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["up", "down"])
    parser.add_argument("--no-accounting", action="store_true")
    parser.add_argument("--min-job-age", type=int, default=300)
    options = parser.parse_args()
    cluster = Cluster()
    try:
        if options.what == "down":
            cluster.down()
        else:
            cluster.up(Settings(accounting=not options.no_accounting, min_job_age=options.min_job_age))
            sys.stdout.write(f"export SLURM_CONF={cluster.layout.slurm_conf}\n")
    except CannotProvide as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
