"""Two minutes of the soak: clips dropped, processes killed, disks filled, nothing lost or left."""

import subprocess
import sys

from tests.conftest import ROOT

SECONDS = 100  # and what it takes to begin and to end


def test_two_minutes() -> None:
    """Prints its table where it fails."""
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", "--seconds", str(SECONDS), "--seed", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS + 200,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr[-4000:]
