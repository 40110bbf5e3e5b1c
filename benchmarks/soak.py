"""The daemon under all that may happen, for as long as you like; nothing may be lost or left.

``python -m benchmarks.soak [--seconds 1800] [--seed N]``: a real daemon on simulated stages. Clips
are dropped at random, some twice, some changed, some broken, some before their prompts; workers and
the daemon are killed, the disk of the results fills up. At the end every good clip has exactly one
result, that of an undisturbed run, every bad one a reason, and nothing is left behind. In the last
third the daemon is not killed: what it holds then has to stay what it is.

Exit code 1 where a bound is missed.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from daemon.failure_note import note_path
from tests.faults.daemon_rig import DaemonRig, fill, pictures, tmpfs

LENGTHS = (6, 10, 14, 18)  # frames
WAITING = 6  # clips that wait at most: the end is not to take long
MEBIBYTES = 256  # of the disk that fills up
# Of one device's deaths: more of them within a minute, and it is lost, as it is to be.
DEATHS, SPAN = 3, 60.0
# What may differ between the first quarter of the last third and its end.
MORE_DESCRIPTORS, MORE_MIB = 8, 16
# A job may have to be told twice to try again: three of its tasks were killed by chance.
PATIENCE = 120.0


class Soak:
    """One run; ``happened`` counts what was done to the daemon."""

    def __init__(self, rig: DaemonRig, chance: random.Random, disk: Path | None) -> None:
        self.rig = rig
        self.chance = chance
        self.disk = disk
        self.happened: Counter[str] = Counter()
        self.good: dict[str, int] = {}  # frames by name
        self.bad: set[str] = set()
        self.deleted: set[str] = set()
        self._prompts: list[tuple[float, str]] = []  # when they come
        self._deaths: dict[str, list[float]] = {}
        self._full_until: float | None = None
        self._number = 0
        self.missed: list[str] = []

    # --- what happens ----------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let it all happen."""
        rig = self.rig
        begin = time.monotonic()
        calm, end = begin + seconds * 2 / 3, begin + seconds
        quarter = calm + (end - calm) / 4
        next_kill, next_crash, next_full = begin + 4, begin + 10, begin + 6
        first: tuple[int, float] | None = None
        while (now := time.monotonic()) < end:
            self._prompts_come(now)
            counts = self._counts()
            if sum(counts.get(state, 0) for state in ("queued", "preparing")) < WAITING:
                self._drop(now)
            if now > next_kill:
                self._kill_a_worker(now)
                next_kill = now + self.chance.uniform(2, 6)
            if now > next_crash and now < calm - 5:
                self._kill_the_daemon()
                next_crash = time.monotonic() + self.chance.uniform(8, 25)
            if self.disk is not None:
                next_full = self._fill_up(now, next_full)
            if now > quarter and first is None:
                first = self._held()
            assert rig.process.poll() is None, rig.tail()
            time.sleep(self.chance.uniform(0.05, 0.3))
        self._space()
        self._prompts_come(float("inf"))
        self._settle()
        if first is not None:
            self._compare(first, self._held())

    def _drop(self, now: float) -> None:
        self._number += 1
        name = f"clip-{self._number:05d}"
        frames = self.chance.choice(LENGTHS)
        match self.chance.choices(
            ["plain", "later", "again", "changed", "corrupt", "deleted"], [50, 15, 8, 8, 12, 7]
        )[0]:
            case "again" if known := self._some(self.good):
                self.rig.drop(known, self.good[known])
                self.happened["dropped again"] += 1
            case "changed" if known := self._some(self.good):
                self.good[known] = frames
                self.rig.drop(known, frames)
                self.happened["changed"] += 1
            case "deleted" if known := self._some(self.good):
                del self.good[known]
                self.deleted.add(known)
                (self.rig.inbox / f"{known}.mp4").unlink()
                self.happened["deleted"] += 1
            case "corrupt":
                self.bad.add(name)
                broken = self.chance.randbytes(self.chance.randrange(1, 20_000))
                self.rig.drop(name, content=broken)
                self.happened["corrupt"] += 1
            case what:
                self.good[name] = frames
                later = what == "later"
                self.rig.drop(name, frames, None if later else "a car")
                if later:
                    self._prompts.append((now + self.chance.uniform(0.2, 5), name))
                    self.happened["prompt later"] += 1
        self.happened["dropped"] += 1

    def _some(self, names: Mapping[str, object]) -> str:
        """One that has its prompt, or that will not be waited for."""
        waiting = {name for _, name in self._prompts}
        known = sorted(set(names) - waiting - self.deleted)
        return self.chance.choice(known) if known else ""

    def _prompts_come(self, now: float) -> None:
        for due, name in [each for each in self._prompts if each[0] <= now]:
            (self.rig.inbox / f"{name}.txt").write_text("a car")
            self._prompts.remove((due, name))

    def _kill_a_worker(self, now: float) -> None:
        for pid in self.chance.sample(found := self.rig.workers(), len(found)):
            with suppress(OSError):
                name = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-2].decode()
                deaths = self._deaths.setdefault(name, [])
                deaths[:] = [then for then in deaths if now - then < SPAN]
                if not name.startswith("cpu") or len(deaths) < DEATHS:
                    deaths.append(now)
                    os.kill(pid, signal.SIGKILL)
                    self.happened[f"{name.split('-')[0].split()[0]} worker killed"] += 1
                    return

    def _kill_the_daemon(self) -> None:
        if self.chance.random() < 0.3:
            os.killpg(self.rig.process.pid, signal.SIGKILL)
        self.rig.kill()
        self.happened["daemon killed"] += 1
        for name in self.rig.results():
            folder = self.rig.output / name
            if folder.is_dir() and self.rig.manifest(name) is None:
                self._miss(f"{name} is half a result after a kill")
        self.rig.start()
        self._deaths.clear()

    def _fill_up(self, now: float, due: float) -> float:
        assert self.disk is not None
        if self._full_until is None and now > due:
            fill(self.disk / "ballast", spare=self.chance.choice([0, 4096, 60_000]))
            self._full_until = now + self.chance.uniform(0.5, 3)
            self.happened["disk full"] += 1
        elif self._full_until is not None and now > self._full_until:
            self._space()
            return now + self.chance.uniform(5, 20)
        return due

    def _space(self) -> None:
        self._full_until = None
        if self.disk is not None:
            (self.disk / "ballast").unlink(missing_ok=True)

    # --- what has to be --------------------------------------------------------------------------

    def _settle(self) -> None:
        """Wait until nothing is to be done; what was killed too often is told to try again."""
        until = time.monotonic() + PATIENCE
        busy = {"queued", "preparing", "translating", "propagating", "publishing"}
        quiet = 0
        while quiet < 5 and time.monotonic() < until:
            counts = self._counts()
            idle = counts and not any(counts.get(state, 0) for state in busy)
            # A note that found the disk full comes a moment after the job's end.
            noted = all(note_path(self.rig.output / name).exists() for name in self.bad)
            quiet = quiet + 1 if idle and noted else 0
            for job in self.rig.client.jobs(limit=100_000):
                if job["state"] == "failed" and "killed by SIGKILL" in job["reason"]:
                    self.rig.client.retry(job["id"])
                    self.happened["tried again by command"] += 1
            time.sleep(0.3)
        if quiet < 5:
            self._miss(f"not at rest after {PATIENCE:.0f} s: {self._counts()}")

    def check(self, expected: Mapping[int, Mapping[str, bytes]]) -> None:
        """Compare what there is with what there has to be."""
        rig = self.rig
        for name, frames in self.good.items():
            if rig.manifest(name) is None:
                self._miss(f"{name}: no result: {rig.job(name)}")
            elif pictures(rig.output / name) != expected[frames]:
                self._miss(f"{name}: not the result of an undisturbed run")
        for name in self.bad:
            job = rig.job(name)
            if job.get("state") != "failed" or not job["reason"]:
                self._miss(f"{name} is broken, but: {job}")
            if not note_path(rig.output / name).exists():
                self._miss(f"{name} is broken, and no note says why")
        for name in self.deleted & rig.results():
            if rig.manifest(name) is None:
                self._miss(f"{name} was deleted, and is half a result")
        names = {name.removesuffix(".failed.txt") for name in rig.results()}
        if extra := names - set(self.good) - self.bad - self.deleted - {"lost+found"}:
            self._miss(f"nobody has asked for {sorted(extra)}")
        for hidden in (".staging", ".replaced"):
            if left := [*(rig.output / hidden).glob("*")]:
                self._miss(f"left in {hidden}: {sorted(path.name for path in left)}")
        jobs = [(job["clip"], job["state"]) for job in rig.client.jobs(limit=100_000)]
        running = [job for job in jobs if job[1] not in ("done", "failed", "cancelled")]
        if running:
            self._miss(f"not ended: {running}")
        if "control failed" in rig.log.read_text(errors="replace"):
            self._miss("a request has failed: see the log")
        rig.stop()  # asserts that no process and no shared memory is left

    def _compare(self, first: tuple[int, float], last: tuple[int, float]) -> None:
        print(f"descriptors {first[0]} -> {last[0]} (at most {MORE_DESCRIPTORS} more)")
        print(f"resident MiB {first[1]:.1f} -> {last[1]:.1f} (at most {MORE_MIB} more)")
        if last[0] - first[0] > MORE_DESCRIPTORS:
            self._miss("descriptors leak")
        if last[1] - first[1] > MORE_MIB:
            self._miss("memory leaks")

    def _held(self) -> tuple[int, float]:
        """The supervisor's open descriptors and MiB."""
        process = Path("/proc", str(self.rig.process.pid))
        pages = int((process / "statm").read_text().split()[1])
        return len(os.listdir(process / "fd")), pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def _counts(self) -> dict[str, int]:
        return dict(self.rig.status().get("jobs", {}))

    def _miss(self, text: str) -> None:
        self.missed.append(text)
        print(f"MISSED {text}")


def soak(folder: Path, seconds: float, seed: int) -> list[str]:
    """Run it in a folder; what was missed."""
    with ExitStack() as stack:
        disk: Path | None = None
        try:
            disk = stack.enter_context(tmpfs(folder / "disk", MEBIBYTES))
        except OSError as error:
            print(f"no full disks: no tmpfs can be mounted ({error})")
        rig = stack.enter_context(
            DaemonRig(
                folder,
                output=(disk or folder) / "output",
                devices="cpu*2",
                service__attempts=100,
                inbox__rescan_seconds=5.0,
                inbox__quiet_seconds=0.2,
            )
        )
        rig.start()
        for frames in LENGTHS:
            rig.drop(f"undisturbed-{frames}", frames)
        expected = {}
        for frames in LENGTHS:
            rig.wait_for(f"undisturbed-{frames}", "done")
            expected[frames] = pictures(rig.output / f"undisturbed-{frames}")
        run = Soak(rig, random.Random(seed), disk)
        run.good |= {f"undisturbed-{frames}": frames for frames in LENGTHS}
        run.run(seconds)
        run.check(expected)
        for what, count in sorted(run.happened.items()):
            print(f"{count:6d}  {what}")
        print(f"{len(run.good):6d}  good clips, {len(run.missed)} bounds missed")
        if run.missed:
            kept = Path(tempfile.gettempdir()) / "frescod-soak.log"
            kept.write_bytes(rig.log.read_bytes())
            print(f"the log: {kept}")
        return run.missed


def main() -> int:
    """Exit code 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = random.randrange(1 << 30) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        return bool(soak(Path(folder), options.seconds, seed))


if __name__ == "__main__":
    sys.exit(main())
