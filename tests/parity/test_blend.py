"""Guides and merging against the reference data (blend.npz).

The data is BGR, the project RGB: every picture is turned round when it is read.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from fresco_core.propagation import blending, guides, histogram, poisson, warp
from fresco_core.propagation.options import PropagationOptions
from fresco_core.propagation.positions import positions
from fresco_core.propagation.selection import assemble, choose
from tests.conftest import material

PUBLISHED = PropagationOptions.published()
RUNS = {"fwd": "bwd", "bwd": "fwd"}


class Data:
    """The arrays of the file; ``rgb`` turns pictures round."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.arrays = {name: file[name] for name in file.files}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def rgb(self, name: str) -> np.ndarray:
        return np.ascontiguousarray(self.arrays[name][..., ::-1])

    def frames(self, run: str) -> np.ndarray:
        """Input frames of a run, the key frame's first."""
        return self.rgb("frames_bgr")[self[f"{run}.frame_ids"] - self["first_frame"][0]]


@pytest.fixture(scope="module")
def data() -> Data:
    return Data(material("FRESCO_REFERENCE_DIR", "reference") / "blend.npz")


def differing(a: np.ndarray, b: np.ndarray) -> float:
    """Share of elements that are not equal."""
    return float((a != b).mean())


def farthest(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def relative(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.abs(a - b).mean() / np.abs(b).mean())


@pytest.mark.parametrize("run", RUNS)
def test_edge_guide(data: Data, run: str) -> None:
    ours = np.stack([guides.edges(frame) for frame in data.frames(run)])
    assert farthest(ours, data.rgb(f"{run}.edge_guide")) <= 1


@pytest.mark.parametrize("run", RUNS)
def test_positional_guide(data: Data, run: str) -> None:
    expected = data.rgb(f"{run}.positional_guide")
    ours = [positions(*expected.shape[1:3])]
    for flow, occluded in zip(data[f"{run}.flows"], data[f"{run}.occ"], strict=True):
        ours.append(guides.carry(ours[-1], flow, occluded, 30))
    assert farthest(np.stack(ours), expected) <= 1


@pytest.mark.parametrize("run", RUNS)
def test_temporal_guide(data: Data, run: str) -> None:
    expected = data.rgb(f"{run}.temporal_guide")
    before = data.rgb(f"{run}.temporal_guide_before_inpaint")
    previous = data.rgb(f"{run}.stylised_previous")
    for j, (flow, occluded) in enumerate(
        zip(data[f"{run}.flows"], data[f"{run}.occ"], strict=True)
    ):
        assert farthest(warp.warp_nearest(previous[j], flow), before[j]) <= 1
        assert farthest(guides.carry(previous[j], flow, occluded, 30), expected[j + 1]) <= 1


@pytest.mark.parametrize("run", RUNS)
def test_bilinear_warp(data: Data, run: str) -> None:
    expected = data.rgb(f"{run}.bilinear_warp_float")
    previous, flows = data.rgb(f"{run}.stylised_previous"), data[f"{run}.flows"]
    ours = [warp.warp_linear(previous[j], flows[j]) for j in range(len(expected))]
    assert relative(np.stack(ours), expected) <= 1e-5


@pytest.mark.parametrize("run", RUNS)
def test_occlusion_of_both_runs(data: Data, run: str) -> None:
    """The way back of a pair of frames is found in the other run, by its frame numbers."""
    pairs = {}
    for name in RUNS:
        numbers = data[f"{name}.frame_ids"].tolist()
        for j, flow in enumerate(data[f"{name}.flows"]):
            pairs[numbers[j + 1], numbers[j]] = flow
    numbers = data[f"{run}.frame_ids"].tolist()
    compared = 0
    for j, expected in enumerate(data[f"{run}.occ"]):
        back = pairs.get((numbers[j], numbers[j + 1]))
        if back is not None:
            ours = warp.occlusion(data[f"{run}.flows"][j], back)
            assert differing(ours, expected) <= 1e-4
            compared += 1
    assert compared


def test_choice_mask_for_every_weight(data: Data) -> None:
    names = [name for name in data.arrays if re.fullmatch(r"mask\.w\d+", name)]
    assert names
    for name in names:
        ours = choose(data["mask.dist1"], data["mask.dist2"], int(name[6:]) / 100)
        assert differing(ours, data[name]) <= 1e-4, name


def test_assembled_picture(data: Data) -> None:
    ours = assemble(data.rgb("assemble.a"), data.rgb("assemble.b"), data["assemble.mask"])
    assert farthest(ours, data.rgb("assemble.out")) == 0


def test_histogram_blend_for_every_weight(data: Data) -> None:
    names = [name for name in data.arrays if re.fullmatch(r"histogram\.out_w\d+", name)]
    assert names
    a, b = data.rgb("histogram.a"), data.rgb("histogram.b")
    for name in names:
        ours = histogram.blend(a, b, data.rgb("histogram.min_error"), 1 - int(name[15:]) / 100)
        assert farthest(ours, data.rgb(name)) <= 1, name


def test_poisson_solution(data: Data) -> None:
    target = histogram.to_lab(data.rgb("poisson.blend")).astype(np.float32)
    mean = target.mean((0, 1), dtype=np.float64).astype(np.float32)
    np.testing.assert_allclose(mean, data["poisson.lab_mean"], rtol=1e-5)
    solution = poisson.solve(
        target - mean,
        histogram.to_lab(data.rgb("poisson.a")),
        histogram.to_lab(data.rgb("poisson.b")),
        data["poisson.mask"],
        weights=PUBLISHED.poisson_weights,
        clip=PUBLISHED.poisson_clip,
    )
    assert relative(solution + mean, data["poisson.lab_solution_exact"]) <= 1e-5
    # The published solver stops within 6e-5 of the minimum.
    assert relative(solution + mean, data["poisson.lab_solution_lsqr"]) <= 6e-5


def test_poisson_picture(data: Data) -> None:
    ours = poisson.fuse(
        data.rgb("poisson.blend"),
        data.rgb("poisson.a"),
        data.rgb("poisson.b"),
        data["poisson.mask"],
        weights=PUBLISHED.poisson_weights,
        clip=PUBLISHED.poisson_clip,
    )
    assert relative(ours, data.rgb("poisson.out")) <= 5e-3
    assert farthest(ours, data.rgb("poisson.out")) <= 4


def interval(data: Data, *, reverse: bool, options: PropagationOptions):
    """Masks and frames of the made-up interval; ``reverse`` feeds the second maps as published."""
    second_errors = data["interval.error_second"]
    merged = blending.merge(
        data.rgb("interval.from_first_key"),
        data.rgb("interval.from_second_key"),
        data["interval.error_first"],
        second_errors[::-1] if reverse else second_errors,
        data["fwd.flows"],
        options,
    )
    frames, masks = zip(*merged, strict=True)
    return np.stack(frames), np.stack(masks)


@pytest.mark.parametrize("name", ["aligned", "time_reversed"])
def test_interval(data: Data, name: str) -> None:
    frames, masks = interval(data, reverse=name == "time_reversed", options=PUBLISHED)
    assert differing(masks, data[f"interval.{name}.mask"]) <= 1e-4
    assert relative(frames, data.rgb(f"interval.{name}.fused")) <= 5e-3
    assert farthest(frames, data.rgb(f"interval.{name}.fused")) <= 4


def test_interval_steps(data: Data) -> None:
    """Minimum-error picture and histogram blend on the way to the fused frames."""
    firsts, seconds = data.rgb("interval.from_first_key"), data.rgb("interval.from_second_key")
    masks = data["interval.aligned.mask"]
    for i, mask in enumerate(masks):
        picture = assemble(firsts[i], seconds[i], mask)
        assert farthest(picture, data.rgb("interval.aligned.min_error")[i]) == 0
        weight = blending.time_weight(i, len(masks), "published")
        ours = histogram.blend(firsts[i], seconds[i], picture, weight)
        assert farthest(ours, data.rgb("interval.aligned.histogram_blend")[i]) <= 1
