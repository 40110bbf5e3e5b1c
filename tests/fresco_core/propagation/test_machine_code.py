"""Machine code: once a machine, in whatever folder."""

import errno
import logging
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, Lock

import pytest

from fresco_core.propagation import (
    PropagationOptions,
    compile_ahead,
    compiled,
    machine_code,
    segment,
)
from tests.conftest import ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for machine code, and a process that has rehearsed nothing."""
    monkeypatch.setattr(compiled, "folder", lambda: tmp_path / "kept")
    monkeypatch.setattr(machine_code, "_ready", set())
    return tmp_path / "kept"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been thrown away of this process's own machine code."""
    calls: list[str] = []
    monkeypatch.setattr(compiled, "keep_nothing", lambda: calls.append("nothing"))
    return calls


def notices(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_one_of_many_compiles(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Locks are of open files: threads stand for processes."""

    class Forgetful(set):
        def __contains__(self, what: object) -> bool:
            return False

    monkeypatch.setattr(machine_code, "_ready", Forgetful())
    caplog.set_level(logging.INFO)
    began, first, made, early = Barrier(4), Lock(), Event(), []

    def rehearse() -> None:
        if first.acquire(blocking=False):
            time.sleep(0.2)  # in which the others have come
            made.set()
        elif not made.is_set():
            early.append(1)

    def process(_: int) -> None:
        began.wait()
        machine_code.ready("a", rehearse)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(process, range(4)))
    assert made.is_set()
    assert not early
    assert [level for level, _ in notices(caplog)] == ["INFO"]
    assert "once" in caplog.text
    assert str(folder) in caplog.text


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_nothing_can_be_locked_all_is_kept(
    folder: Path, number: int, monkeypatch: pytest.MonkeyPatch, kept: list[str]
):
    def flock(*_: object) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(machine_code.fcntl, "flock", flock)
    calls: list[int] = []
    machine_code.ready("a", lambda: calls.append(1))
    assert (len(calls), len(list(folder.glob("*.ready"))), kept) == (1, 1, [])


def test_a_lock_that_is_another_users(folder: Path, kept: list[str]):
    """A folder in its place cannot be opened to write either, not even by root."""
    (folder / "frescod.lock").mkdir(parents=True)
    machine_code.ready("a", lambda: None)
    assert (len(list(folder.glob("*.ready"))), kept) == (1, [])


def test_who_waits_finds_it_made(folder: Path):
    """While the lock is held nothing is rehearsed; afterwards there is nothing to tell."""
    order: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        with machine_code._alone(folder):
            second = pool.submit(machine_code.ready, "a", lambda: order.append("second"))
            with pytest.raises(TimeoutError):
                second.result(timeout=0.2)
            order.append("first")
        second.result(timeout=10)
    assert order == ["first", "second"]


def test_whether_it_is_made(folder: Path, monkeypatch: pytest.MonkeyPatch):
    assert not machine_code.is_made("a")
    machine_code.ready("a", lambda: None)
    assert machine_code.is_made("a")
    assert not machine_code.is_made("b")
    monkeypatch.setattr(compiled, "folder", lambda: None)
    assert machine_code.is_made("b")  # each process makes its own


def test_ahead_only_what_is_not_made(folder: Path, monkeypatch: pytest.MonkeyPatch):
    rehearsed: list[int] = []
    monkeypatch.setattr(segment, "rehearse", rehearsed.append)
    compile_ahead(PropagationOptions(patch=7))
    monkeypatch.setattr(machine_code, "_ready", set())  # as another process
    compile_ahead(PropagationOptions(patch=7))
    assert rehearsed == [7]


def test_once_in_a_process(folder: Path):
    calls: list[int] = []
    for what in ("a", "a", "b"):
        machine_code.ready(what, lambda: calls.append(1))
    assert len(calls) == 2
    assert len(list(folder.glob("*.ready"))) == 2


def test_what_other_sources_left_is_made_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    source = tmp_path / "source.py"
    source.write_text("1")
    monkeypatch.setattr(compiled, "sources", lambda: [source])
    caplog.set_level(logging.INFO)
    for text in ("1", "1", "22"):
        source.write_text(text) if source.read_text() != text else None
        monkeypatch.setattr(machine_code, "_ready", set())
        machine_code.ready("a", lambda: None)
    assert len(notices(caplog)) == 2


def test_a_folder_that_cannot_be_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kept: list[str],
):
    (tmp_path / "file").touch()
    monkeypatch.setattr(compiled, "folder", lambda: tmp_path / "file" / "kept")
    monkeypatch.setattr(machine_code, "_ready", set())
    machine_code.ready("a", lambda: None)
    ((level, text),) = notices(caplog)
    assert level == "WARNING"
    assert "NUMBA_CACHE_DIR" in text
    assert kept == ["nothing"]


@pytest.mark.parametrize("error", [pickle.UnpicklingError("cut"), EOFError(), OSError(28, "full")])
def test_damaged_files_and_full_disks(
    folder: Path, error: Exception, caplog: pytest.LogCaptureFixture, kept: list[str]
):
    def rehearse() -> None:
        raise error

    machine_code.ready("a", rehearse)
    assert kept == ["nothing"]
    assert not list(folder.glob("*.ready"))
    assert type(error).__name__ in caplog.text


def test_without_any_folder(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(compiled, "folder", lambda: None)
    monkeypatch.setattr(machine_code, "_ready", set())
    machine_code.ready("a", pytest.fail)
    assert "every process" in caplog.text


def test_a_rehearsal_leaves_nothing_to_compile():
    """Whatever the frames, the key frames and the options; in a process that has made no more."""
    program = """
from dataclasses import replace
import numpy as np
from fresco_core.propagation import PropagationOptions, compiled, segment
from fresco_core.propagation.patchmatch import Guide, fit

segment.rehearse(5)
before = [len(made.signatures) for made in compiled._KERNELS]
colour = np.random.default_rng(0).integers(0, 256, (5, 40, 30, 3)).astype(np.uint8)
grey = np.repeat(colour[..., :1], 3, axis=3)
flows = np.zeros((4, 2, 40, 30), np.float32)
published = PropagationOptions.published()
for options in (
    PropagationOptions(),
    PropagationOptions(blend="selection", poisson=False, inpaint_scale=4, still=-1),
    replace(published, votes=2, sweeps=2),
):
    for frames in (colour, grey):
        for keys in (colour, grey):
            segment.paint_segment(frames, keys[0], keys[-1], flows, flows + 2, options)
fit(colour[0], colour[1], [Guide(colour[1], colour[2], 1.0)] * 4, sweeps=2)
after = [len(made.signatures) for made in compiled._KERNELS]
for made, a, b in zip(compiled._KERNELS, before, after, strict=True):
    assert a == b, (made, made.signatures)
assert sum(before) > 20
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_is_kept_can_be_given_up():
    before = list(compiled._KERNELS)
    made = compiled.kernel(_double)
    assert compiled.folder() is not None
    assert Path(__file__) in compiled.sources()
    try:
        compiled._KERNELS[:] = [made]
        compiled.keep_nothing()
        assert made(21) == 42
        assert made.stats.cache_path is None
    finally:
        compiled._KERNELS[:] = before


def _double(number):
    return 2 * number
