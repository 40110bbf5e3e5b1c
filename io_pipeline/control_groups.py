"""The control groups (version 2) that limit this process."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def control_groups() -> Iterator[Path]:
    """The folders of this process's group and of all above it; none without control groups."""
    try:
        entries = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    group = ROOT.joinpath(*(entry[4:] for entry in entries if entry.startswith("0::/")))
    for folder in (group, *group.parents):
        if not folder.is_relative_to(ROOT):
            return
        yield folder
