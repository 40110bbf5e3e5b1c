from collections.abc import Iterator

import pytest

from tests.daemon.logbook import Log, configured


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Iterator[Log]:
    """What is logged."""
    with configured(capsys) as log:
        yield log
