"""torchvision's RAFT large (Teed and Deng, ECCV 2020).

Shape legend: N pairs of frames, H rows, W columns.
"""

import torch
from torch import Tensor
from torchvision.models.optical_flow import RAFT as RaftNetwork
from torchvision.models.optical_flow import raft_large

from fresco_core.flow.padding import Padding
from fresco_core.flow.weights import find_flow_weights
from fresco_core.network_files import RAFT
from fresco_core.state_dict import load_network

_STRIDE = 8  # RAFT works on features at 1/8 of the frame
_SMALLEST = 128  # below this its coarsest correlation level is too small to look anything up


class RaftFlow:
    """RAFT large; each pair is computed by itself, so results do not depend on N."""

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
        path = find_flow_weights("raft", weights)
        assert path is not None
        network = load_network(
            path,
            lambda _: raft_large(weights=None, progress=False),
            RAFT,
            "fetch it again, or choose flow model dis",
        )
        return cls(network, device)

    @torch.no_grad()
    def __call__(self, first_N3HW: Tensor, second_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`fresco_core.flow.FlowModel`."""
        forward: list[Tensor] = []
        backward: list[Tensor] = []
        for first_3HW, second_3HW in zip(first_N3HW, second_N3HW, strict=True):
            flows_22HW = self._both_ways(torch.stack([first_3HW, second_3HW]))
            forward.append(flows_22HW[0])
            backward.append(flows_22HW[1])
        return torch.stack(forward), torch.stack(backward)

    def _both_ways(self, pair_23HW: Tensor) -> Tensor:
        rows, columns = pair_23HW.shape[-2:]
        padding = Padding(rows, columns, multiple=_STRIDE, smallest=_SMALLEST)
        frames_23HW = pair_23HW.to(self._device, torch.float32) / 127.5 - 1
        frames_23HW = padding.extend(frames_23HW)
        return padding.cut(self._network(frames_23HW, frames_23HW.flip(0))[-1])
