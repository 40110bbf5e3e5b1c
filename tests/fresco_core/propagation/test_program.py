"""The original program: how it is called, and what becomes of its answers."""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fresco_core.errors import ConfigError, FrescodError
from fresco_core.propagation import PropagationOptions, propagate, scratch
from fresco_core.propagation.patchmatch import Guide, Synthesis, fit
from fresco_core.propagation.program import check_program, paint
from tests.conftest import ROOT
from tests.fresco_core.propagation.scene import psnr, sliding, stylise, texture
from tests.fresco_core.propagation.stand_in import COPY, StandIn, error_map

STYLE, SOURCE, TARGET = (texture(24, 32, seed) for seed in range(3))
GUIDES = [Guide(SOURCE, TARGET, 6.0), Guide(TARGET, SOURCE, 0.5)]
COUNT = 24 * 32


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, in which nothing may be left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def options(program: StandIn | Path | str) -> PropagationOptions:
    path = program.path if isinstance(program, StandIn) else program
    return PropagationOptions(engine="ebsynth", program=str(path), votes=3, sweeps=2)


def painted(folder: Path, behaviour: str) -> Synthesis:
    return paint(STYLE, GUIDES, options(StandIn(folder, behaviour)))


class TestCall:
    def test_argument_list(self, tmp_path: Path) -> None:
        program = StandIn(tmp_path, COPY + error_map(f"range({COUNT})"))
        chosen = replace(options(program), patch=7, uniformity=1234.5)
        paint(STYLE, GUIDES, chosen)
        (call,) = program.calls
        assert " ".join(call["arguments"]) == (
            "-style style.png "
            "-guide source0.png target0.png -weight 6.0 "
            "-guide source1.png target1.png -weight 0.5 "
            "-uniformity 1234.5 -patchsize 7 -searchvoteiters 3 -patchmatchiters 2 "
            "-output output.png"
        )
        assert call["threads"] == "1"

    @pytest.mark.parametrize(
        ("name", "picture"), [("style", STYLE), ("source", SOURCE), ("target", TARGET)]
    )
    def test_pictures_go_and_come_without_loss(
        self, tmp_path: Path, name: str, picture: np.ndarray
    ) -> None:
        result = painted(tmp_path, f"shutil.copy({name}, output)")
        np.testing.assert_array_equal(result.image_HWC, picture)
        assert result.image_HWC.dtype == np.uint8

    def test_nothing_is_left(self, tmp_path: Path, temporary: Path) -> None:
        program = StandIn(tmp_path, COPY + "; os.mkdir('more'); open('more/file', 'w')")
        paint(STYLE, GUIDES, options(program))
        assert Path(program.calls[0]["folder"]).parent == temporary
        assert not list(temporary.iterdir())


class TestErrorMap:
    @pytest.mark.parametrize("name", ["errors.bin", "output.flo", "x"])
    def test_is_the_program_s_own_by_whatever_name(self, tmp_path: Path, name: str) -> None:
        result = painted(tmp_path, COPY + error_map(f"range({COUNT})", name))
        np.testing.assert_array_equal(result.error_HW, np.arange(COUNT).reshape(24, 32))
        assert result.error_HW.dtype == np.float32

    @pytest.mark.parametrize(
        "other",
        [
            "",
            error_map(f"range({COUNT - 1})"),
            error_map(f"[float('nan')] * {COUNT}"),
            f"open('errors.bin', 'wb').write(struct.pack('<Q', {COUNT + 1}) + bytes({4 * COUNT}))",
        ],
        ids=["none", "of another size", "no numbers", "of another count"],
    )
    def test_is_found_by_our_own_search_where_there_is_none(
        self, tmp_path: Path, other: str
    ) -> None:
        result = painted(tmp_path, f"{COPY}\n{other}")
        expected = fit(TARGET, STYLE, GUIDES, sweeps=4)
        np.testing.assert_array_equal(result.error_HW, expected)


class TestFailure:
    @pytest.mark.parametrize(
        ("behaviour", "message"),
        [
            ("sys.exit('error:\\x1b no GPU\\n\\n')", r"\(exit code 1: error:  no GPU\)"),
            ("sys.exit(3)", r"failed \(exit code 3\): see whether"),
            ("os.kill(os.getpid(), 11)", r"failed \(killed by SIGSEGV\)"),
            (COPY + "; sys.exit(2)", "exit code 2"),
            ("pass", "ended without a picture"),
            ("open(output, 'w')", "cannot be read"),
            ("open(output, 'w').write('picture')", "cannot be read"),
            ("os.mkdir(output)", "Is a directory"),
        ],
    )
    def test_is_one_line(
        self, tmp_path: Path, temporary: Path, behaviour: str, message: str
    ) -> None:
        with pytest.raises(FrescodError, match=message) as caught:
            painted(tmp_path, behaviour)
        assert str(caught.value).isprintable()
        assert not list(temporary.iterdir())

    def test_a_picture_of_another_size(self, tmp_path: Path) -> None:
        guides = [Guide(SOURCE, TARGET, 1.0), Guide(SOURCE, TARGET[:, :30], 1.0)]
        program = StandIn(tmp_path)
        with pytest.raises(FrescodError, match="made a picture of 32x24 where 30x24") as caught:
            paint(STYLE, guides[1:] + guides[:1], options(StandIn(tmp_path, _LAST_TARGET)))
        assert str(program.path) in str(caught.value)
        assert "propagation.engine" in str(caught.value)

    def test_no_room(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        with pytest.raises(FrescodError, match=r"gone/.*No such file.*TMPDIR"):
            painted(tmp_path, COPY)

    def test_not_for_this_machine(self, tmp_path: Path) -> None:
        program = tmp_path / "ebsynth"
        program.write_bytes(b"\x7fELF of another world")
        program.chmod(0o755)
        with pytest.raises(FrescodError, match="Exec format error"):
            paint(STYLE, GUIDES, options(program))


_LAST_TARGET = "shutil.copy([v for v in sys.argv if v.startswith('target')][-1], output)"


class TestCheck:
    def test_a_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = StandIn(tmp_path).path
        assert check_program(program) == program
        monkeypatch.setenv("HOME", str(tmp_path))
        assert check_program("~/eb synth") == program
        monkeypatch.chdir(tmp_path)
        assert check_program("./eb synth") == program

    def test_a_name_on_the_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = StandIn(tmp_path).path
        monkeypatch.setenv("PATH", f"/nowhere:{tmp_path}")
        assert check_program("eb synth") == program
        with pytest.raises(ConfigError, match="no ebsynth on the PATH: give its path, or set"):
            check_program("ebsynth")

    def test_what_cannot_be_executed(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"nowhere/ebsynth not found: correct the path"):
            check_program(tmp_path / "nowhere/ebsynth")
        with pytest.raises(ConfigError, match="is no file"):
            check_program(tmp_path)
        program = StandIn(tmp_path).path
        program.chmod(0o644)
        with pytest.raises(ConfigError, match=r"eb synth cannot be executed: run `chmod \+x`"):
            check_program(program)
        program.write_bytes(b"MZ\x90\x00")
        program.chmod(0o755)
        with pytest.raises(ConfigError, match="for Windows"):
            check_program(program)

    def test_is_told_when_it_is_to_paint(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="not found"):
            paint(STYLE, GUIDES, options(tmp_path / "ebsynth"))

    def test_needs_neither_torch_nor_numba(self) -> None:
        code = "import sys, fresco_core.propagation.program as p; p.check_program(sys.executable)"
        code += "; assert not {'torch', 'numba', 'scipy'} & sys.modules.keys()"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_segment_by_the_program(tmp_path: Path) -> None:
    """Each frame is painted twice, from either key frame; guides and weights are the options'."""
    frames, forward, backward = sliding(4, height=24, width=32)
    keys = stylise(frames)[[0, -1]]
    program = StandIn(tmp_path, COPY)
    chosen = replace(options(program), poisson=False, edge=3.0)
    result = propagate(frames, keys[0], keys[1], forward, backward, options=chosen)
    assert len(program.calls) == 4
    for call in program.calls:
        values = call["arguments"]
        assert [values[i + 1] for i, v in enumerate(values) if v == "-weight"] == [
            "6.0",
            "3.0",
            "0.5",
            "2.0",
        ]
    # The stand-in paints the colour guide: both directions agree, and nothing else is mixed in.
    assert psnr(result, frames[1:-1]) > 45


def test_the_program_dies_with_whoever_runs_it(tmp_path: Path, temporary: Path) -> None:
    program = StandIn(tmp_path, "time.sleep(60)")
    code = f"""
import numpy as np, tempfile
from fresco_core.propagation.program import paint
from fresco_core.propagation.options import PropagationOptions
from types import SimpleNamespace
tempfile.tempdir = {str(temporary)!r}
picture = np.zeros((8, 8, 3), np.uint8)
guide = SimpleNamespace(source=picture, target=picture, weight=1.0)
paint(picture, [guide], PropagationOptions(engine="ebsynth", program={str(program.path)!r}))
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as parent:
        end = time.monotonic() + 20
        while not program.calls and time.monotonic() < end:
            time.sleep(0.01)
        parent.kill()
    pid = program.calls[0]["pid"]
    while running(pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert not running(pid)
    # Its folder has stayed, until somebody else wants one.
    (left,) = temporary.iterdir()
    locked = temporary / f"{left.name}-locked"
    locked.mkdir()
    foreign = temporary / "another program's"
    foreign.mkdir()
    for folder in (left, locked, foreign):
        os.utime(folder, (0, 0))
    young = temporary / f"{left.name}-young"
    young.mkdir()
    held = scratch._lock(locked)
    scratch._remove_left.cache_clear()
    with scratch.scratch_folder() as new:
        assert set(temporary.iterdir()) == {locked, foreign, young, new}
    os.close(held)


def running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
