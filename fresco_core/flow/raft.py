"""torchvision's RAFT large (Teed and Deng, ECCV 2020).

Shape legend: H rows, W columns.
"""

import torch
from torch import Tensor
from torchvision.models.optical_flow import RAFT as RaftNetwork
from torchvision.models.optical_flow import raft_large

from fresco_core.flow.padding import Padding
from fresco_core.flow.pairs import PairFlow
from fresco_core.flow.weights import FLOW
from fresco_core.network_files import RAFT
from fresco_core.state_dict import load_network

_STRIDE = 8  # RAFT works on features at 1/8 of the frame
_SMALLEST = 128  # below this its coarsest correlation level is too small to look anything up


class RaftFlow(PairFlow):
    """RAFT large on both directions of a pair."""

    name = "raft"

    def __init__(self, network: RaftNetwork, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self._device)

    @classmethod
    def load(cls, weights: str | None = None, device: torch.device | str = "cpu") -> "RaftFlow":
        """Load a state dict.

        Args:
            weights: ``.pth`` or ``.safetensors`` file; None takes torchvision's own weights, which
                must already lie in torch's hub cache: nothing is downloaded here.
            device: where the network runs.

        Raises:
            ModelsError: the file is missing, damaged or holds another network.
        """
        path = FLOW.find("raft", weights)
        assert path is not None
        network = load_network(
            path,
            lambda _: raft_large(weights=None, progress=False),
            RAFT,
            "fetch it again, or choose flow model dis",
        )
        return cls(network, device)

    def both_ways(self, pair_23HW: Tensor) -> Tensor:
        """See :class:`fresco_core.flow.pairs.PairFlow`."""
        rows, columns = pair_23HW.shape[-2:]
        padding = Padding(rows, columns, multiple=_STRIDE, smallest=_SMALLEST)
        frames_23HW = pair_23HW.to(self._device, torch.float32) / 127.5 - 1
        frames_23HW = padding.extend(frames_23HW)
        return padding.cut(self._network(frames_23HW, frames_23HW.flip(0))[-1])
