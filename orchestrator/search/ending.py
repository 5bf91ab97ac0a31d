"""What the study database is told of a trial that has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.model import Verdict
from orchestrator.store.trials import Ending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config.study import Objective
    from orchestrator.model import Json, Outcome

__all__ = ["ending"]


def ending(outcome: Outcome, targets: Sequence[Objective], site: str) -> Ending:
    """The end of a trial whose last attempt ended with ``outcome`` on ``site``.

    A failure is told as a failure, never as a value.
    """
    attributes = _attributes(outcome, site)
    if outcome.verdict is Verdict.SUCCEEDED:
        values = [outcome.metrics[item.metric] for item in targets]
        return Ending(state="complete", values=values, attributes=attributes)
    return Ending(
        state="pruned" if outcome.verdict in {Verdict.STOPPED, Verdict.PAUSED} else "failed", attributes=attributes
    )


def _attributes(outcome: Outcome, site: str) -> dict[str, Json]:
    return {
        "outcome": {
            "site": site,
            "verdict": str(outcome.verdict),
            "reason": outcome.reason,
            "attempts": outcome.attempts,
            "tag": outcome.tag,
            "job_id": outcome.job_id,
            "host": outcome.host,
            "submitted": outcome.submitted,
            "started": outcome.started,
            "ended": outcome.ended,
            "queue_wait": outcome.queue_wait,
            "exit_code": outcome.exit_code,
            "signal": outcome.signal,
            "max_rss": outcome.max_rss,
            "gpus": list(outcome.gpus),
            "gpu_memory": outcome.gpu_memory,
            "directory": outcome.directory,
        },
        "metrics": dict(outcome.metrics),
        "info": dict(outcome.info),
    }
