"""Synthesis against what the original program made of real frames.

A case is a folder with ``meta.json``; large ones run only with FRESCOD_LARGE_CASES=1.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fresco_core.propagation.effort import Effort
from fresco_core.propagation.options import PropagationOptions
from fresco_core.propagation.patchmatch import Guide, Synthesis, fit, synthesize
from tests.conftest import find_material

SMALL_SIDE = 320
SPEED_UP = 20
"""Of CPU time. The benchmark wants 40, of a machine that does nothing else."""


def cases() -> list[Any]:
    folder = find_material("FRESCO_PROPAGATION_DIR", "propagation")
    metas = sorted(folder.glob("*/meta.json")) if folder else []
    if not metas:
        reason = "FRESCO_PROPAGATION_DIR: no case there"
        return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]
    parameters = []
    for meta in metas:
        large = max(json.loads(meta.read_text())[side] for side in ("height", "width")) > SMALL_SIDE
        skip = large and os.environ.get("FRESCOD_LARGE_CASES") != "1"
        marks = [pytest.mark.skip(reason="large; FRESCOD_LARGE_CASES=1 runs it")] if skip else []
        parameters.append(pytest.param(meta, id=meta.parent.name, marks=marks))
    return parameters


def load(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    assert picture is not None, path
    return np.ascontiguousarray(picture[..., ::-1])


def guides_of(folder: Path, meta: dict[str, Any]) -> list[Guide]:
    return [
        Guide(load(folder / guide["src"]), load(folder / guide["tgt"]), guide["weight"])
        for guide in meta["guides"]
    ]


def synthesize_case(folder: Path, meta: dict[str, Any]) -> tuple[Synthesis, float]:
    """The default synthesis with the case's own weights and parameters, and its CPU seconds."""
    options, parameters = PropagationOptions(), meta["params"]
    guides = guides_of(folder, meta)
    style = load(folder / meta["style"])
    start = time.process_time()
    result = synthesize(
        style,
        guides,
        style_weight=meta["style_weight"],
        patch=parameters["patchsize"],
        uniformity=parameters["uniformity"],
        effort=options.effort,
        seed=options.seed,
    )
    return result, time.process_time() - start


@pytest.fixture(scope="module")
def compiled() -> None:
    """Machine code made beforehand, so that seconds are those of the work."""
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    synthesize(picture, [Guide(picture, picture, 1.0)] * 4, effort=Effort(2, 1))


@pytest.mark.parametrize("path", cases())
def test_as_good_as_the_original(path: Path, compiled: None) -> None:
    meta = json.loads(path.read_text())
    result, seconds = synthesize_case(path.parent, meta)
    reference = meta["reference"]
    ratio = float(result.error_HW.mean()) / reference["E"]["mean"]
    signal = cv2.PSNR(result.image_HWC, load(path.parent / "truth.png"))
    gain = signal - reference["psnr_truth"]
    print(f"{meta['case']}: E x {ratio:.4f}, PSNR {signal:.2f} ({gain:+.3f}) dB, {seconds:.1f} s")
    assert ratio <= 1.03
    assert gain >= -0.1
    assert seconds <= reference["cpu_s"] / SPEED_UP


@pytest.mark.parametrize("path", cases())
def test_errors_of_the_original_s_picture(path: Path) -> None:
    """What the program has not told of its picture our own search finds."""
    meta = json.loads(path.read_text())
    folder, parameters = path.parent, meta["params"]
    error = fit(
        load(folder / "out.png"),
        load(folder / meta["style"]),
        guides_of(folder, meta),
        style_weight=meta["style_weight"],
        patch=parameters["patchsize"],
        uniformity=parameters["uniformity"],
        sweeps=12,
    )
    told = np.load(folder / "error.npy")
    ratio = float(error.mean() / told.mean())
    alike = float(np.corrcoef(np.log1p(error.ravel()), np.log1p(told.ravel()))[0, 1])
    print(f"{meta['case']}: E x {ratio:.4f}, correlation of logarithms {alike:.4f}")
    assert 0.97 <= ratio <= 1.03
    assert alike >= 0.97
