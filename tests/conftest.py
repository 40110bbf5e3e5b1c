"""Where the tests find material that is not part of the project."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The tests' networks are too small for several threads, which only wait for each other where cores
# are shared. Set before torch is imported, and inherited by the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def find_material(variable: str, default: str) -> Path | None:
    """Folder named by an environment variable, else beside the checkout; None when absent.

    With FRESCOD_REQUIRE_MATERIAL=1, as in CI, an absent folder is an error.
    """
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / default))
    if folder.is_dir():
        return folder
    if os.environ.get("FRESCOD_REQUIRE_MATERIAL") == "1":
        raise FileNotFoundError(f"{folder} is required: set {variable}")
    return None


def material(variable: str, default: str) -> Path:
    """The same; skips the test when absent."""
    folder = find_material(variable, default)
    if folder is None:
        pytest.skip(f"{variable}: no such folder")
    return folder


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Numeric reference data of the method."""
    return material("FRESCO_REFERENCE_DIR", "reference")


@pytest.fixture(scope="session")
def clips_dir() -> Path:
    """Real clips."""
    return material("FRESCO_CLIPS_DIR", "clips")


@pytest.fixture(scope="session")
def propagation_dir() -> Path:
    """Reference cases of propagation."""
    return material("FRESCO_PROPAGATION_DIR", "propagation")
