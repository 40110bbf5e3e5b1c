"""Flow and saliency networks of random weights: the published layout, small widths."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fresco_core.flow.gmflow_network import GmflowNetwork, GmflowWidths
from fresco_core.saliency.egnet_network import EgnetNetwork, EgnetWidths

GMFLOW_WIDTHS = GmflowWidths(stem=4, stages=(4, 6, 8), channels=8, blocks=2, hidden=64, upsampler=8)
EGNET_WIDTHS = EgnetWidths(stem=4, stages=(2, 3, 4, 5), blocks=(2, 1, 2, 1), edge=4, low=6, high=8)


def gmflow_state(seed: int = 0) -> dict[str, Tensor]:
    """A state dict of GMFlow."""
    return _random_state(lambda: GmflowNetwork(GMFLOW_WIDTHS), seed)


def egnet_state(seed: int = 0) -> dict[str, Tensor]:
    """A state dict of EGNet."""
    return _random_state(lambda: EgnetNetwork(EGNET_WIDTHS), seed)


def save_weights(path: Path, state: dict[str, Tensor], wrapper: str = "", old: bool = False) -> str:
    """Write a state dict; returns the path as settings name it.

    Args:
        path: ``.safetensors``, or anything else for torch's own format.
        wrapper: key under which the weights lie.
        old: torch's format from before 1.6, as the published EGNet has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(
            {wrapper: state, "epoch": 3} if wrapper else state,
            path,
            _use_new_zipfile_serialization=not old,
        )
    return str(path)


def named(names: Iterable[str]) -> dict[str, Tensor]:
    """Tensors of these names with next to nothing in them."""
    return {name: torch.zeros(1) for name in names}


def _random_state(build, seed: int) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = build()
        return network.state_dict()
