"""The longest clip first, by what the headers say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from daemon.jobs import Job
from daemon.order import AT_ONCE, longest_first
from io_pipeline.tasks import ClipSize


class FakeReaders:
    """Know the sizes, and how many were asked at once."""

    def __init__(self, sizes: dict[str, ClipSize]) -> None:
        self.sizes = sizes
        self.open_now = self.most = self.asked = 0

    @asynccontextmanager
    async def open(self, clip: Path, run: Any) -> AsyncIterator["FakeReader"]:
        self.open_now += 1
        self.most = max(self.most, self.open_now)
        yield FakeReader(self, clip)
        self.open_now -= 1


class FakeReader:
    def __init__(self, readers: FakeReaders, clip: Path) -> None:
        self.readers, self.clip = readers, clip

    async def measure(self) -> ClipSize:
        self.readers.asked += 1
        await asyncio.sleep(0)
        return self.readers.sizes[self.clip.stem]


def order(readers: FakeReaders, cores: int = 4) -> list[str]:
    jobs = [Job(Path(f"{name}.mp4"), Path(f"{name}.txt"), name) for name in readers.sizes]
    ordered = asyncio.run(longest_first(jobs, readers, cores))  # type: ignore[arg-type]
    return [job.name for job in ordered]


def test_frames_times_pixels() -> None:
    """Equal ones as they were given, those of which nothing is known last."""
    sizes = {
        "unknown": ClipSize(0, 10**6),
        "small": ClipSize(100, 10),
        "equal": ClipSize(10, 100),
        "wide": ClipSize(20, 100),
    }
    assert order(FakeReaders(sizes)) == ["wide", "small", "equal", "unknown"]


def test_a_few_at_once() -> None:
    for cores, most in ((1, 1), (3, 3), (64, AT_ONCE)):
        readers = FakeReaders({str(i): ClipSize(i, 1) for i in range(30)})
        assert order(readers, cores) == [str(i) for i in reversed(range(30))]
        assert (readers.most, readers.asked, readers.open_now) == (most, 30, 0)


def test_a_single_clip_is_not_measured() -> None:
    readers = FakeReaders({"a": ClipSize(1, 1)})
    assert order(readers) == ["a"]
    assert readers.asked == 0
