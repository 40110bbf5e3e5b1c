"""Not every thing that is done is told, and not too few of them are."""

import time

import pytest

from io_pipeline.pace import Pace
from tests.io_pipeline.windows import Reports


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    """Every look at the clock takes a tenth of a second."""
    now = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(now) * 0.1)
    return Reports()


def test_at_most_four_a_second(reports: Reports) -> None:
    pace = Pace(reports, "decode", 50)
    assert reports == [("decode", 0, 50)]
    for number in range(10, 16):
        pace(number)
    # The clock is looked at once more where something is told.
    assert reports[1:] == [("decode", 13, 50), ("decode", 16, 50)]


def test_one_more_counts_what_is_not_told_too(reports: Reports) -> None:
    pace = Pace(reports, "publish", 9)
    for _ in range(9):
        pace.one_more()
    assert [done for _, done, _ in reports] == [0, 3, 6, 9]
