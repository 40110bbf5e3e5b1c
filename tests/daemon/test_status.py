import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from daemon.budget import Budget
from daemon.devices import Device, Devices
from daemon.jobs import Job, JobRecord, JobState
from daemon.live import Live
from daemon.memory import Memory
from daemon.places import Places
from daemon.readers import Readers
from daemon.status import snapshot
from daemon.timeline import Timeline
from daemon.workers import Worker, WorkerPool
from daemon.workshop import Workshop
from daemon.workshop_options import WorkshopOptions
from tests.conftest import ROOT
from tests.daemon.control_rig import status as agreed
from tests.daemon.logbook import Log

PLACES = Places(Path("/in"), Path("/out\n"), Path("/state"), Path("/state/control.sock"))
NOBODY: Any = None


class House:
    """A workshop of real parts whose processes were never started, and a clock."""

    def __init__(self, devices: int = 2, cpus: int = 4) -> None:
        self.time = 1000.0
        deadlines = {"task": 1.0}
        self.timeline = Timeline(lambda: self.time, keep=False)
        names = [f"cuda:{number}" for number in range(devices)]
        self.devices = Devices(
            names,
            lambda name: NOBODY,
            deadlines=deadlines,
            threads=1,
            on_event=lambda text, action: None,
        )
        self.readers = Readers(NOBODY, "pyav", deadlines=deadlines)
        self.pool = WorkerPool("pool", NOBODY, cpus, deadlines=deadlines)
        self.workshop = Workshop(
            self.readers,
            self.pool,
            self.devices,
            Budget(cpus),
            Memory(1 << 30),
            self.timeline,
            WorkshopOptions(control_device="auto", device_threads=1, space_timeout=1.0),
            lambda text: None,
        )
        self.live = Live(clock=lambda: self.time)
        self.counts: dict[JobState, int] = {}
        self.failures: list[JobRecord] = []

    def track(self, name: str) -> int:
        return self.workshop._runner.track(name, "")

    def begin(self, number: int) -> Job:
        job = Job(Path(f"/in/{number}\n.mp4"), Path("p"), f"job {number}", id=number, attempts=2)
        self.live.begin(job, number, 0)
        return job

    def status(self) -> dict[str, Any]:
        return snapshot(
            self.workshop,
            self.live,
            PLACES,
            state="serving",
            started=1.7e9,
            uptime=12.0,
            counts=self.counts,
            failures=self.failures,
            problems=["all is\nwrong"],
        )


@pytest.fixture
def house(log: Log, monkeypatch: pytest.MonkeyPatch) -> House:
    return House()


def ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """All workers have loaded their stages."""
    monkeypatch.setattr(Worker, "ready", property(lambda worker: True))


def failure(number: int) -> JobRecord:
    return JobRecord(
        *(number, Path(f"/in/{number}.mp4"), None, None, "n", JobState.FAILED, "why\n", 0, 3, 0, 0),
        *(1.0, 2.0, 3.0, 4.0),
    )


def kinds(value: Any) -> Any:
    """What is in it, without how often or how much."""
    if isinstance(value, dict):
        return {name: kinds(each) for name, each in value.items()}
    if isinstance(value, list):
        return [kinds(value[0])] if value else []
    return "number" if isinstance(value, int | float) else type(value).__name__


class TestSnapshot:
    def test_has_the_form_that_was_agreed_on(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ready(monkeypatch)
        job = house.begin(7)
        house.failures = [failure(3)]
        house.counts = {JobState.QUEUED: 120}
        for number in range(2):
            house.live.stage(job, "translate", number, 14, 0.0)
            house.time += 60
        house.timeline.begin(house.track("cuda:0"), "translate", job.name, 2)
        house.timeline.begin_wait(house.track("cuda:1"), "frames", job.name)
        told, expected = house.status(), agreed()
        assert json.loads(json.dumps(told)) == told
        assert list(told) == list(expected)
        for part in ("devices", "running"):
            assert set(told[part][0]) == set(expected[part][0])
        for part in ("pools", "cores", "memory", "jobs", "blocked", "failures", "problems"):
            assert kinds(told[part]) == kinds(expected[part])
        assert told["pid"] == os.getpid()
        assert (told["output"], told["store"]) == ("/out\\n", "/state/jobs.sqlite")
        assert told["problems"] == ["all is\\nwrong"]
        assert told["queue"] == {"length": 120, "seconds_left": None}
        assert told["jobs"]["queued"] == 120
        assert told["jobs"]["done"] == 0

    def test_a_job_in_work(self, house: House) -> None:
        job = house.begin(7)
        house.live.stage(job, "prepare", 40, None, 0.0)
        house.live.stage(job, "translate", 0, 4, 0.0)
        house.time += 30
        house.live.stage(job, "translate", 1, 4, 0.0)
        (running,) = house.status()["running"]
        assert running == {
            "id": 7,
            "clip": "7\\n.mp4",
            "state": "translating",
            "stages": {"prepare": [40, None], "translate": [1, 4], "propagate": [0, None]},
            "attempts": 2,
            "seconds": 30.0,
            "seconds_left": 210.0,
        }

    def test_the_last_failures(self, house: House) -> None:
        house.failures = [failure(number) for number in range(9, 0, -1)]
        failures = house.status()["failures"]
        assert [each["id"] for each in failures] == [9, 8, 7, 6, 5]
        assert failures[0] == {"id": 9, "clip": "9.mp4", "reason": "why\\n", "ended": 3.0}


class TestDevices:
    def test_one_that_works(self, house: House) -> None:
        job = house.begin(7)
        house.live.stage(job, "translate", 2.5, 14, 0.0)
        house.timeline.begin(house.track("cuda:0"), "translate", job.name, 2)
        house.time += 30
        device, other = house.status()["devices"]
        assert device == {
            "name": "cuda:0",
            "state": "working",
            "job": 7,
            "clip": "7\\n.mp4",
            "stage": "translate",
            "window": 3,
            "windows": 14,
            "memory": None,
            "waits": None,
            "lost": "",
            "busy": 1.0,
        }
        assert (other["state"], other["job"], other["busy"]) == ("loading", None, 0.0)

    def test_one_that_waits_for_its_clip(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ready(monkeypatch)
        job = house.begin(7)
        house.timeline.begin_wait(house.track("cuda:0"), "frames", job.name)
        house.time += 5
        device, other = house.status()["devices"]
        assert (device["state"], device["job"]) == ("idle", 7)
        assert device["waits"] == {"for": "frames", "seconds": 5.0}
        assert (device["window"], device["windows"], device["stage"]) == (0, 0, "")
        assert (other["state"], other["waits"]) == ("idle", None)

    def test_of_several_waits_the_longest_is_told(self, house: House) -> None:
        house.timeline.begin_wait(house.track("cuda:0"), "frames", "a")
        house.time += 5
        house.timeline.begin_wait(house.track("cuda:0"), "core", "a")
        assert house.status()["devices"][0]["waits"] == {"for": "frames", "seconds": 5.0}

    def test_how_many_windows_there_are_may_not_be_known_yet(self, house: House) -> None:
        job = house.begin(7)
        house.timeline.begin(house.track("cuda:0"), "translate", job.name, 2)
        device = house.status()["devices"][0]
        assert (device["window"], device["windows"]) == (3, 3)

    def test_one_that_loads_and_one_that_is_lost(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ready(monkeypatch)
        house.timeline.begin_wait(house.track("cuda:0"), "loading")
        house.devices.all[1].lost = "it\nburns"
        one, two = house.status()["devices"]
        assert one["state"] == "loading"
        assert (two["state"], two["lost"]) == ("lost", "it\\nburns")

    def test_memory_where_it_is_known(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Device, "memory", property(lambda device: 5 << 30))
        assert house.status()["devices"][0]["memory"] == 5 << 30

    def test_busy_is_of_the_last_five_minutes(self, house: House) -> None:
        span = house.timeline.begin(house.track("cuda:0"), "translate", "a", 0)
        house.time += 600
        house.timeline.end(span)
        house.time += 75
        assert house.status()["devices"][0]["busy"] == pytest.approx(0.75)


class TestResources:
    def test_pools_cores_and_memory(self, house: House) -> None:
        house.pool.workers[0]._busy = True
        house.workshop._runner.waiting["cpu"] = 3
        house.workshop._runner.waiting["reader"] = 2
        house.workshop.cores.free = 1
        house.workshop.memory.used = 7
        told = house.status()
        assert told["pools"] == [
            {"name": "readers", "workers": 0, "busy": 0, "waiting": 2},
            {"name": "pool", "workers": 4, "busy": 1, "waiting": 3},
        ]
        assert told["cores"] == {"used": 3, "total": 4}
        assert told["memory"] == {"used": 7, "total": 1 << 30}

    def test_who_is_held_up_since_when(self, house: House) -> None:
        house.begin(7)
        house.timeline.begin_wait(None, "memory", "job 7")
        house.time += 10
        house.timeline.begin_wait(house.track("cuda:0"), "core", "gone")
        house.time += 1
        assert house.status()["blocked"] == [
            {"who": "clip", "for": "memory", "clip": "7\\n.mp4", "seconds": 11.0},
            {"who": "cuda:0", "for": "core", "clip": "gone", "seconds": 1.0},
        ]


def test_it_takes_less_than_five_milliseconds(log: Log) -> None:
    house = House(devices=8, cpus=64)
    house.counts = dict.fromkeys(JobState, 10_000)
    house.failures = [failure(number) for number in range(5)]
    for number in range(24):
        job = house.begin(number)
        house.live.stage(job, "translate", number / 2, 99, 0.0)
        house.timeline.begin_wait(None, "memory", job.name)
    for number, device in enumerate(house.devices.all):
        house.timeline.begin(house.track(device.name), "translate", f"job {number}", 3)
    for worker in house.pool.workers:
        for _ in range(200):
            house.timeline.end(house.timeline.begin(house.track(worker.name), "propagate", "a", 3))
        house.timeline.begin(house.track(worker.name), "propagate", "job 3", 3)
    rounds = []
    for _ in range(20):
        begin = time.thread_time()
        told = house.status()
        rounds.append(time.thread_time() - begin)
    assert len(told["devices"]) == 8
    assert min(rounds) < 0.005


def test_it_loads_no_torch() -> None:
    code = "import daemon.status, daemon.metrics, sys; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert result.stdout == "False\n", result.stderr
