"""What in a frame is not background: saliency models behind one protocol.

Shape legend: N frames, H rows, W columns, h x w = H/2 x W/2.
"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the place of weights can be had without torch
    import torch
    from torch import Tensor


class SaliencyModel(Protocol):
    """What is salient in each frame of a batch."""

    @property
    def name(self) -> str:
        """Name for the manifest."""
        ...

    def __call__(self, frames_N3HW: "Tensor", flows_N2HW: "Tensor") -> "Tensor":
        """Salient regions of every frame.

        Args:
            frames_N3HW: uint8 RGB, any device, H and W even.
            flows_N2HW: flow of each frame towards a neighbour in time, as
                `fresco_core.saliency.motion.nearest_flows` gives it.

        Returns:
            float32 (N,1,h,w) in [0,1], 1 = salient, on the device of the flow.
        """
        ...


def load_saliency(
    model: str = "motion", weights: str | None = None, device: "torch.device | str" = "cpu"
) -> SaliencyModel:
    """Load a saliency model.

    Args:
        model: ``"egnet"`` (a network) or ``"motion"`` (what moves unlike the camera; no weights);
            what ``"auto"`` means is told by `fresco_core.saliency.weights.SALIENCY`.
        weights: for EGNet, a ``.pth`` or ``.safetensors`` state dict; None takes the file of the
            usual name from torch's hub cache. Motion has none.
        device: where the network runs.

    Raises:
        ConfigError: unknown model, or weights given to a model that has none.
        ModelsError: weights missing, damaged or of another network.
    """
    from fresco_core.saliency.egnet import EgnetSaliency
    from fresco_core.saliency.motion import MotionSaliency
    from fresco_core.saliency.weights import SALIENCY

    if model == "egnet":
        return EgnetSaliency.load(weights, device)
    SALIENCY.find(model, weights)  # refuses any but motion, and weights for that
    return MotionSaliency()
