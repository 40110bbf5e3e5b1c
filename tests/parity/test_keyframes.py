"""Key frame selection and batches against reference data."""

import json
from pathlib import Path

import numpy as np
import pytest

from fresco_core.keyframes import (
    DifferenceCurve,
    batch_key_frames,
    by_difference,
    every_nth,
    resize_frame,
    working_size,
)


@pytest.fixture(scope="module")
def cases(reference_dir: Path) -> dict:
    return json.loads((reference_dir / "keyframes.json").read_text())


@pytest.fixture(scope="module")
def arrays(reference_dir: Path) -> dict:
    return dict(np.load(reference_dir / "keyframes.npz"))


def selected(curve, minimum: int, maximum: int) -> list[int]:
    if minimum == maximum:
        return list(every_nth(len(curve), minimum))
    return list(by_difference(curve, minimum, maximum))


def test_selection_on_stored_curves(cases, arrays):
    checked = 0
    for name, clip in cases["clips"].items():
        curve = next((c for k, c in arrays.items() if name.startswith(k)), None)
        for selection in clip["selections"]:
            minimum, maximum = selection["mininterv"], selection["maxinterv"]
            if curve is None and minimum != maximum:
                continue
            limit = selection.get("frame_limit") or clip["frame_count"]
            values = np.zeros(clip["frame_count"]) if curve is None else curve
            assert selected(values[:limit], minimum, maximum) == selection["keys"], selection
            checked += 1
    assert checked > 0


def test_selection_on_constant_frames(cases):
    for clip in cases["constant_frame_clips"]:
        levels = np.array(clip["levels"], np.float32) / 255 * 2 - 1
        curve = np.concatenate([np.zeros(1, np.float32), np.diff(levels) ** 2])
        # The reference lists the only frame of a one-frame clip twice.
        expected = sorted(set(clip["keys"]))
        assert selected(curve, clip["mininterv"], clip["maxinterv"]) == expected, clip


def test_difference_curve_of_real_clips(cases, arrays, clips_dir):
    from io_pipeline.video import scan_clip

    checked = 0
    for name in cases["clips"]:
        curve = next((c for k, c in arrays.items() if name.startswith(k)), None)
        clip = clips_dir / name
        if curve is None or not clip.is_file():
            continue
        differences = DifferenceCurve()
        scan_clip(clip, on_frame=lambda _, frame, add=differences.add: add(frame))
        np.testing.assert_allclose(differences.values(), curve, rtol=2e-2, atol=1e-6)
        checked += 1
    if not checked:
        pytest.skip("no clip of a stored curve in the clips folder")


def test_working_sizes(cases):
    for case in cases["resize"]:
        assert list(working_size(*case["in"], case["resolution"])) == case["out"], case
        enlarges = case["resolution"] > min(case["in"])
        assert case["filter"] == ("lanczos4" if enlarges else "area")


def test_resized_pixels(arrays):
    names = sorted(k.removesuffix(".src") for k in arrays if k.endswith(".src"))
    assert names
    for name in names:
        resized = resize_frame(arrays[f"{name}.src"], int(arrays[f"{name}.resolution"][0]))
        difference = resized.astype(int) - arrays[f"{name}.dst"].astype(int)
        assert np.abs(difference).max() <= 1, name


def test_batches(reference_dir: Path):
    cases = json.loads((reference_dir / "batches.json").read_text())["cases"]
    compared = 0
    for case in cases:
        if case["batch_size"] < 3 or case["n_keys"] < 1:
            continue
        batches = batch_key_frames(range(case["n_keys"]), case["batch_size"])
        assert [k for b in batches for k in b.new] == list(range(case["n_keys"]))
        if "reference_fails" in case:
            if case["n_keys"] <= case["batch_size"]:
                assert len(batches) == 1
            continue
        found = [
            {
                "frames": list(b.frames),
                "carried": list(b.carried),
                "new": list(b.new),
                "propagation": bool(b.carried),
            }
            for b in batches
        ]
        assert found == case["batches"], case
        compared += 1
    assert compared > 0
