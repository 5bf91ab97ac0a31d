from __future__ import annotations

import pytest
from sampler_spaces import mixed, quiet_study, run, valid

from orchestrator.errors import UsageError
from orchestrator.samplers import SkoptSampler


def test_its_gaussian_process_searches_a_mixed_space_with_pending_trials() -> None:
    study = quiet_study(SkoptSampler(seed=1))
    assert all(valid(params) for params in run(study, mixed, 6, pending=1))


def test_an_unknown_lie_is_answered_with_the_valid_ones() -> None:
    with pytest.raises(UsageError, match="choose one of cl_min, cl_mean, cl_max"):
        SkoptSampler(lie="white")
