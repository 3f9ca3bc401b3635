"""What HTTP says of an error, for each code that there is."""

from __future__ import annotations

from typing import get_args

import pytest

from schemas.errors import ERRORS_BY_CODE, ConfigurationError, ErrorCode, NoAnswers, Overloaded
from services.gateway.http.errors import headers_of, status_of


@pytest.mark.parametrize("code", get_args(ErrorCode))
def test_each_code_has_a_status_of_its_kind(code: ErrorCode) -> None:
    error = ERRORS_BY_CODE[code]("why")
    assert 400 <= status_of(error) <= 504


def test_a_mesh_that_is_not_set_up_for_what_is_asked_is_no_fault_of_the_gateway() -> None:
    assert status_of(ConfigurationError("the broker listens on its own host alone")) == 409


def test_who_is_refused_for_now_is_told_when_to_come_again() -> None:
    busy = Overloaded("full", retry_after_s=1.2)
    assert status_of(busy) == 429
    assert headers_of(busy) == {"retry-after": "2", "retry-after-ms": "1200"}


def test_work_that_was_done_in_vain_is_not_to_be_repeated_at_once() -> None:
    assert headers_of(NoAnswers("none")) == {"x-should-retry": "false"}
