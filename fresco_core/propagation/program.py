"""The original ebsynth program in place of our synthesis, for those who have it.

Public domain, by Jamriška, Texler and Sýkora. Used as a black box: pictures go in as PNG files, a
picture and, with the builds that FRESCO (Yang et al., CVPR 2024) used, a map of errors come out.

Shape suffixes: H, W rows and columns; C channels. Pictures are uint8 RGB.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco_core.errors import ConfigError, FrescodError
from fresco_core.propagation.options import PropagationOptions
from fresco_core.propagation.pictures import Picture
from fresco_core.propagation.scratch import scratch_folder

if TYPE_CHECKING:
    from fresco_core.propagation.patchmatch import Guide, Synthesis

REMEDY = "or set propagation.engine to builtin"

_OUTPUT, _LOG = "output.png", "log.txt"
_COUNT = np.dtype("<u8")  # of values in an error map, before them
_ERROR = np.dtype("<f4")

# Becomes the program once it is sure to be killed with whoever started it. A process of its own
# rather than code between fork and exec, where other threads may hold locks.
_LAUNCH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def check_program(program: str | Path) -> Path:
    """Where the program is: one named by a path, ``~`` being the home folder, or on the PATH.

    It is not started: nothing that it can be asked tells what it is.

    Raises:
        ConfigError: there is none, it is no file, or cannot be executed here.
    """
    named = os.path.expanduser(program)
    found = shutil.which(named)
    if found is None and os.sep not in named:
        raise ConfigError(
            f"propagation.program: there is no {named} on the PATH: give its path, {REMEDY}"
        )
    path = Path(found or named).absolute()
    if not path.exists():
        raise ConfigError(f"propagation.program: {path} not found: correct the path, {REMEDY}")
    if not path.is_file():
        raise ConfigError(f"propagation.program: {path} is no file: name the program, {REMEDY}")
    if found is None:
        raise ConfigError(
            f"propagation.program: {path} cannot be executed: run `chmod +x` on it, {REMEDY}"
        )
    try:
        with path.open("rb") as file:
            head = file.read(2)
    except OSError:  # it may be executed, but not read
        head = b""
    if head == b"MZ":
        raise ConfigError(
            f"propagation.program: {path} is a program for Windows: build it here, {REMEDY}"
        )
    return path


def paint(style_HWC: Picture, guides: Sequence[Guide], options: PropagationOptions) -> Synthesis:
    """What `synthesize` does, done by the program: one process, of one thread.

    It gets the style, the guides and the numbers of the options that it knows; it has a seed and
    a stop threshold of its own. Its error map is taken where it leaves one, else our own search
    finds the errors of its picture. It may take as long as it wants.

    Raises:
        ConfigError: see `check_program`.
        FrescodError: it fails, makes no such picture, or its files cannot be written.
    """
    program = check_program(options.program)
    height, width = guides[0].target.shape[:2]
    try:
        with scratch_folder() as folder:
            arguments = ["-style", _write(folder, "style", style_HWC)]
            for number, guide in enumerate(guides):
                arguments += ["-guide", _write(folder, f"source{number}", guide.source)]
                arguments += [_write(folder, f"target{number}", guide.target)]
                arguments += ["-weight", str(guide.weight)]
            given = {path.name for path in folder.iterdir()}
            for name, value in (
                ("uniformity", options.uniformity),
                ("patchsize", options.patch),
                ("searchvoteiters", options.effort.votes),
                ("patchmatchiters", options.effort.sweeps),
            ):
                arguments += [f"-{name}", str(value)]
            _run(program, [*arguments, "-output", _OUTPUT], folder)
            image_HWC = _picture(program, folder / _OUTPUT, height, width)
            made = [path for path in folder.iterdir() if path.name not in given]
            error_HW = _error_map(made, height, width)
    except OSError as error:
        raise FrescodError(
            f"{error.filename or 'temporary folder'}: cannot be written ({error.strerror}): make "
            "room, or set TMPDIR to another folder"
        ) from error

    from fresco_core.propagation.patchmatch import Synthesis, fit  # Numba, which takes seconds

    if error_HW is None:
        error_HW = fit(
            image_HWC,
            style_HWC,
            guides,
            patch=options.patch,
            # The field is sought anew: twice the passes of a round find it to within 2 %.
            sweeps=2 * options.effort.sweeps,
            uniformity=options.uniformity,
            seed=options.seed,
        )
    return Synthesis(image_HWC, error_HW)


def _write(folder: Path, stem: str, picture_HWC: Picture) -> str:
    """Write a picture without loss; the file's name."""
    picture_HWC = np.ascontiguousarray(picture_HWC[..., ::-1])
    # Encoded in memory: OpenCV reports a failed write only by its return value.
    _, data = cv2.imencode(".png", picture_HWC, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    (folder / f"{stem}.png").write_bytes(data.tobytes())
    return f"{stem}.png"


def _run(program: Path, arguments: Sequence[str], folder: Path) -> None:
    """Run it to its end, in a folder; its exit code is checked."""
    launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid())]
    with (folder / _LOG).open("wb") as log:
        code = subprocess.run(
            [*launch, str(program), *arguments],
            cwd=folder,
            env=_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if code == 0:
        return
    how = f"exit code {code}" if code > 0 else f"killed by {_signal_name(-code)}"
    said = _last_line(folder / _LOG)
    words = f"{how}: {said}" if said else how
    raise FrescodError(f"{program}: failed ({words}): see whether it runs by hand, {REMEDY}")


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """Of a process of one thread: each holds one core, and others run beside it."""
    return {**own, "OMP_NUM_THREADS": "1"}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(log: Path) -> str:
    """The last that it said, on one line of bounded length."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        text = file.read().decode(errors="replace")
    lines = ["".join(c if c.isprintable() else " " for c in line) for line in text.splitlines()]
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return said[:200]


def _picture(program: Path, path: Path, height: int, width: int) -> Picture:
    """The picture that it has made."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FrescodError(
            f"{program}: ended without a picture: see whether it is ebsynth, {REMEDY}"
        ) from None
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if picture is None:
        raise FrescodError(
            f"{program}: made a picture that cannot be read: see whether it is ebsynth, {REMEDY}"
        )
    if picture.shape != (height, width, 3):
        raise FrescodError(
            f"{program}: made a picture of {picture.shape[1]}x{picture.shape[0]} where "
            f"{width}x{height} was asked for: see whether it is ebsynth, {REMEDY}"
        )
    return np.asarray(picture[..., ::-1], np.uint8)


def _error_map(paths: Sequence[Path], height: int, width: int) -> NDArray[np.float32] | None:
    """(H,W) from a file of a count and that many values, by whatever name; None without one."""
    count = height * width
    for path in paths:
        if path.is_file() and path.stat().st_size == _COUNT.itemsize + count * _ERROR.itemsize:
            data = path.read_bytes()
            if int(np.frombuffer(data, _COUNT, 1)[0]) == count:
                values = np.frombuffer(data, _ERROR, offset=_COUNT.itemsize)
                if np.isfinite(values).all():
                    return values.astype(np.float32).reshape(height, width)
    return None
