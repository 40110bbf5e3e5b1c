"""GMFlow (Xu et al., CVPR 2022) as a flow model.

Shape legend: H rows, W columns.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fresco_core.flow.gmflow_network import STRIDE, WINDOWS, GmflowNetwork, GmflowWidths
from fresco_core.flow.padding import Padding
from fresco_core.flow.pairs import PairFlow
from fresco_core.flow.weights import FLOW
from fresco_core.network_files import GMFLOW
from fresco_core.state_dict import load_network

# Mean and deviation of ImageNet's pictures, RGB in 0..1: what the network was trained on.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


class GmflowFlow(PairFlow):
    """GMFlow on both directions of a pair."""

    name = "gmflow"

    def __init__(self, network: GmflowNetwork, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self._device)
        self._mean_311 = torch.tensor(_MEAN, device=self._device).view(3, 1, 1)
        self._deviation_311 = torch.tensor(_DEVIATION, device=self._device).view(3, 1, 1)

    @classmethod
    def load(cls, weights: str | None = None, device: torch.device | str = "cpu") -> "GmflowFlow":
        """Load a state dict, of the published widths or others.

        Args:
            weights: ``.pth`` or ``.safetensors`` file; None takes the published file's name in
                torch's hub cache: nothing is downloaded.
            device: where the network runs.

        Raises:
            ModelsError: the file is missing, damaged or holds another network.
        """
        path = FLOW.find("gmflow", weights)
        assert path is not None
        remedy = "name GMFlow's weights, or choose flow model raft or dis"
        return cls(load_network(path, _build, GMFLOW, remedy), device)

    def both_ways(self, pair_23HW: Tensor) -> Tensor:
        """See :class:`fresco_core.flow.pairs.PairFlow`."""
        rows, columns = pair_23HW.shape[-2:]
        padding = Padding(rows, columns, multiple=STRIDE * WINDOWS)
        frames_23HW = pair_23HW.to(self._device, torch.float32) / 255
        frames_23HW = (frames_23HW - self._mean_311) / self._deviation_311
        return padding.cut(self._network(padding.extend(frames_23HW)))


def _build(state: Mapping[str, Tensor]) -> GmflowNetwork:
    return GmflowNetwork(GmflowWidths.of(state))
