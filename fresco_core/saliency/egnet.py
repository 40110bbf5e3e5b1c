"""EGNet (Zhao et al., ICCV 2019) as a saliency model.

Shape legend: N frames, H rows, W columns, h x w = H/2 x W/2.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fresco_core.correspondence import scale_down
from fresco_core.network_files import EGNET
from fresco_core.saliency.egnet_network import EgnetNetwork, EgnetWidths
from fresco_core.saliency.weights import SALIENCY
from fresco_core.state_dict import load_network

# The mean of blue, green and red, which the published method takes from red, green and blue.
_MEAN = (104.00699, 116.66877, 122.67892)


class EgnetSaliency:
    """EGNet on frames of half size; each by itself, so neither results nor memory depend on N."""

    name = "egnet"

    def __init__(self, network: EgnetNetwork, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self._device)
        self._mean_311 = torch.tensor(_MEAN, device=self._device).view(3, 1, 1)

    @classmethod
    def load(
        cls, weights: str | None = None, device: torch.device | str = "cpu"
    ) -> "EgnetSaliency":
        """Load a state dict of EGNet's ResNet form, of the published widths or others.

        Args:
            weights: ``.pth`` or ``.safetensors`` file; None takes the published file's name in
                torch's hub cache: nothing is downloaded.
            device: where the network runs.

        Raises:
            ModelsError: the file is missing, damaged or holds another network.
        """
        path = SALIENCY.find("egnet", weights)
        assert path is not None
        remedy = "name the weights of EGNet's ResNet form, or choose saliency model motion"
        return cls(load_network(path, _build, EGNET, remedy), device)

    @torch.no_grad()
    def __call__(self, frames_N3HW: Tensor, flows_N2HW: Tensor) -> Tensor:
        """See :class:`fresco_core.saliency.SaliencyModel`; looks at the frames alone."""
        pictures = (self._picture(frame_3HW) for frame_3HW in frames_N3HW)
        salient = [self._network(picture_13hw).sigmoid() for picture_13hw in pictures]
        return torch.cat(salient).to(flows_N2HW.device)

    def _picture(self, frame_3HW: Tensor) -> Tensor:
        frame_3HW = frame_3HW.to(self._device, torch.float32) - self._mean_311
        return scale_down(frame_3HW[None], 0.5)


def _build(state: Mapping[str, Tensor]) -> EgnetNetwork:
    return EgnetNetwork(EgnetWidths.of(state))
