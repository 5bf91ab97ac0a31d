"""``survey login`` where there is nothing to log in to."""

from __future__ import annotations

import pytest
from survey_command import Survey, command


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str]) -> Survey:
    return command(capsys)


def test_a_site_on_this_machine_needs_no_login_and_says_so(survey: Survey) -> None:
    ran = survey("login", "--site", "local")
    assert ran.code == 2
    assert "transport local" in ran.err
    assert "openssh" in ran.err
