"""What a workshop is made of."""

import resource
from types import SimpleNamespace
from typing import Any

import pytest

from daemon import memory, setup
from daemon.config import Layer, merge
from daemon.setup import open_workshop
from daemon.timeline import Timeline
from daemon.workshop import Workshop
from fresco_core.errors import ConfigError

GIB = 2**30


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "usable_cores", lambda: 16)
    monkeypatch.setattr(memory, "available_memory", lambda: 64 * GIB)


def workshop(*devices: str, **values: Any) -> Workshop:
    settings = merge(Layer("x", {key.replace("__", "."): value for key, value in values.items()}))
    stages: Any = SimpleNamespace(reader="r", cpu="c", devices=devices, device=lambda name: name)
    return open_workshop(settings, stages, Timeline(), lambda text: None, lambda: None)


@pytest.mark.parametrize(
    ("devices", "cores", "threads"),
    [
        (("cpu",), 16, 8),
        (("cpu", "cpu"), 16, 4),
        (("cuda:0",), 15, 1),  # a core for who feeds the GPU
        (("cuda:0", "cuda:1", "cpu"), 14, 1),
        (tuple(f"cuda:{i}" for i in range(16)), 1, 1),
    ],
)
def test_cores_are_shared(devices: tuple[str, ...], cores: int, threads: int) -> None:
    shop = workshop(*devices)
    assert shop.cores.total == len(shop.pool.workers) == cores
    assert shop.options.device_threads == threads <= cores


def test_cores_of_the_settings() -> None:
    assert workshop("cpu", cpu__cores=3).cores.total == 3
    assert workshop("cuda:0", cpu__cores=1).cores.total == 1


def test_memory() -> None:
    assert workshop("cuda:0", "cuda:1").memory.total == 3 * GIB
    assert workshop("cuda:0", prefetch__memory="512MiB").memory.total == GIB // 2
    with pytest.raises(ConfigError, match=r"prefetch\.memory"):
        workshop("cuda:0", prefetch__memory="65GiB")


def test_open_files_are_what_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        workshop("cpu")
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_options() -> None:
    options = workshop("cpu", control__device="gpu", timeouts__space=7).options
    assert (options.control_device, options.space_timeout) == ("gpu", 7)


def test_every_phase_has_its_deadline() -> None:
    """A phase without one has that of a task, the longest."""
    names = {"load": 1, "decode": 2, "step": 3, "propagate": 4, "publish": 5}
    shop = workshop("cpu", **{f"timeouts__{name}": seconds for name, seconds in names.items()})
    deadlines = shop.pool.workers[0]._deadlines
    for name, seconds in {**names, "start": 1, "map": 3, "maps": 3, "flow": 3, "task": 5}.items():
        assert deadlines[name] == seconds, name


def test_what_happens_in_the_pool_is_told() -> None:
    told: list[str] = []
    stages: Any = SimpleNamespace(reader="r", cpu="c", devices=("cpu",), device=lambda name: name)
    shop = open_workshop(
        merge(),
        stages,
        Timeline(),
        lambda text, action: told.append(text),
        lambda: None,
        told.append,
    )
    tell: Any = shop.pool._on_event
    tell("started", SimpleNamespace(name="cpu-0"), "")
    died = SimpleNamespace(name="cpu-0", late=False)
    tell("died", died, "killed by SIGKILL; its task is done again")
    late = SimpleNamespace(name="cpu-1", late=True, output="Thread 0x1 stood here")
    tell("died", late, "map made no progress in 5 s; its task is done again")
    assert told == [
        "cpu-0: killed by SIGKILL; its task is done again",
        "cpu-1: map made no progress in 5 s; its task is done again",
        "Thread 0x1 stood here",
    ]
