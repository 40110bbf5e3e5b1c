"""Reads reference data by its layout: `case.array` entries of an .npz become dicts by case."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fresco_core.correspondence import Correspondence


def load_cases(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Arrays grouped by the part of their name before the last dot ("" where there is none)."""
    cases: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as data:
        for key in data.files:
            case, _, name = key.rpartition(".")
            cases.setdefault(case, {})[name] = data[key]
    return cases


def tensor(array: np.ndarray) -> Tensor:
    """A tensor of the array; masks become float."""
    value = torch.from_numpy(np.ascontiguousarray(array))
    return value.float() if value.dtype == torch.bool else value


def frames(array: np.ndarray) -> Tensor:
    """uint8 (N,H,W,3) -> float (N,3,H,W), 0..255."""
    return torch.from_numpy(array).permute(0, 3, 1, 2).float()


def normalised(array: np.ndarray) -> Tensor:
    """uint8 (N,H,W,3) -> float (N,3,H,W), -1..1."""
    return frames(array) / 255 * 2 - 1


def correspondence(case: dict[str, np.ndarray]) -> Correspondence:
    """Flows and occlusions of a case; those of one direction stand in where the other is absent."""
    forward = "fwd" if "fwd_flows" in case else "bwd"
    return Correspondence(
        tensor(case[f"{forward}_flows"]),
        tensor(case["bwd_flows"]),
        tensor(case[f"{forward}_occs"])[:, None],
        tensor(case["bwd_occs"])[:, None],
    )


def relative_error(found: Tensor, expected: np.ndarray | Tensor) -> float:
    """mean |found - expected| / mean |expected|."""
    expected = torch.as_tensor(expected)
    found, expected = found.detach().double(), expected.double()
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float((found - expected).abs().mean() / expected.abs().mean().clamp_min(1e-30))


def differing(found: Tensor, expected: np.ndarray) -> float:
    """Share of entries that differ."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float((found.bool() != torch.from_numpy(expected)).double().mean())
