"""What a ControlNet sees of a frame, of each kind, against reference data and the specification.

Shapes: n frames, B = 2n (all negative-prompt samples, then all positive), H x W pixels.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fresco_core.conditioning import Conditioner
from fresco_core.models import DiffusionModels, load_diffusion_models
from io_pipeline.control_maps import _detect_depth, _detect_edges, load_detectors
from io_pipeline.options import MapOptions
from tests.parity.arrays import load_cases

Maps = NDArray[np.uint8]


@pytest.fixture(scope="module")
def models(reference_dir: Path) -> DiffusionModels:
    return load_diffusion_models(
        str(reference_dir / "tiny_sd"),
        controlnets=(str(reference_dir / "tiny_controlnet"),) * 2,
        offline=True,
    )


def as_specified(map_nHW: Maps) -> torch.Tensor:
    """Normalised to [-1, 1], back to [0, 1], three channels, once for each half of guidance."""
    normalised_nHW = torch.from_numpy(map_nHW).float() / 255 * 2 - 1
    condition_n3HW = (normalised_nHW * 0.5 + 0.5)[:, None].repeat(1, 3, 1, 1)
    return torch.cat([condition_n3HW, condition_n3HW])


@pytest.mark.parametrize("batch", ["batch1", "batch2"])
def test_canny(reference_dir: Path, models: DiffusionModels, batch: str) -> None:
    case = load_cases(reference_dir / "translate.npz")[batch]
    draw = load_detectors(("canny",))
    maps_nHW = np.stack([draw(frame, MapOptions(), (0,))[0] for frame in case["frames"]])
    assert np.array_equal(maps_nHW, case["canny"])
    maps_n2HW = np.stack([maps_nHW, 255 - maps_nHW], axis=1)
    first, second = Conditioner(models, flow=None).control(maps_n2HW)  # type: ignore[arg-type]
    torch.testing.assert_close(first, as_specified(case["canny"]), rtol=0, atol=1e-7)
    torch.testing.assert_close(second, 1 - as_specified(case["canny"]), rtol=0, atol=1e-7)


def test_soft_edges(reference_dir: Path, models: DiffusionModels) -> None:
    """From the network's five maps on; the network: tests/io_pipeline/test_control_maps.py."""
    with np.load(reference_dir / "hed.npz") as case:
        frame_HWC, edges_HW = case["frame"], case["edge"]
        sides_11hw = [torch.from_numpy(case[f"side_{i}"]) for i in range(1, 6)]
    inputs = []

    def network(input_13HW: torch.Tensor) -> list[torch.Tensor]:
        inputs.append(input_13HW)
        return sides_11hw

    drawn_HW = _detect_edges(network, "cpu", frame_HWC, MapOptions())
    assert np.array_equal(drawn_HW, edges_HW)
    # Raw values, RGB, at the frame's own size.
    assert torch.equal(inputs[0], torch.from_numpy(frame_HWC).permute(2, 0, 1)[None].float())
    maps_n2HW = np.stack([[drawn_HW] * 2])
    seen, _ = Conditioner(models, flow=None).control(maps_n2HW)  # type: ignore[arg-type]
    torch.testing.assert_close(seen, as_specified(edges_HW[None]), rtol=0, atol=1e-7)


def test_depth(models: DiffusionModels) -> None:
    """The frame as the network sees it, and what becomes of its answer."""
    inputs = []

    def network(input_13HW: torch.Tensor) -> torch.Tensor:
        inputs.append(input_13HW)
        rows, columns = input_13HW.shape[-2:]
        return torch.linspace(3, 8, rows * columns).reshape(1, rows, columns)

    frame_HWC = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    depth_HW = _detect_depth(network, "cpu", frame_HWC, MapOptions())
    expected_3HW = torch.from_numpy(frame_HWC).permute(2, 0, 1).float() / 127.5 - 1
    assert torch.equal(inputs[0], expected_3HW[None])  # at its own size, RGB
    answer_HW = np.linspace(3, 8, 64 * 128, dtype=np.float32).reshape(64, 128)
    answer_HW -= answer_HW.min()
    expected_HW = (answer_HW / answer_HW.max() * 255).clip(0, 255).astype(np.uint8)
    assert np.abs(depth_HW.astype(int) - expected_HW).max() <= 1  # rounding of the last place
    assert (depth_HW != expected_HW).mean() < 0.01
    seen, _ = Conditioner(models, flow=None).control(np.stack([[depth_HW] * 2]))  # type: ignore[arg-type]
    torch.testing.assert_close(seen, as_specified(depth_HW[None]), rtol=0, atol=1e-7)
