"""Optical flow models behind one protocol.

Shape legend: N pairs of frames, H rows, W columns.
"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the inverse search and the place of weights can be had without torch
    import torch
    from torch import Tensor


class FlowModel(Protocol):
    """Optical flow between pairs of frames, in both directions."""

    @property
    def name(self) -> str:
        """Name for the manifest."""
        ...

    def __call__(self, first_N3HW: "Tensor", second_N3HW: "Tensor") -> "tuple[Tensor, Tensor]":
        """Flow of every pair.

        Args:
            first_N3HW, second_N3HW: uint8 RGB, any device, any H and W.

        Returns:
            ``(forward_N2HW, backward_N2HW)``, float32, pixels, channel 0 = x (columns), channel 1 =
            y (rows), on the model's device. ``forward`` lives on the grid of the first frame and
            points towards the second; ``backward`` lives on the grid of the second and points
            towards the first.
        """
        ...


def load_flow(
    model: str = "dis", weights: str | None = None, device: "torch.device | str" = "cpu"
) -> FlowModel:
    """Load an optical flow model.

    Args:
        model: ``"dis"`` (OpenCV, on the CPU, no weights), ``"raft"`` (torchvision's RAFT large) or
            ``"gmflow"``; what ``"auto"`` means is told by `fresco_core.flow.weights.FLOW`.
        weights: a ``.pth`` or ``.safetensors`` state dict; None takes the file of the published
            name from torch's hub cache. DIS has none.
        device: where the network runs and where results are put.

    Raises:
        ConfigError: unknown model, or weights given to a model that has none.
        ModelsError: weights missing, damaged or of another network.
    """
    from fresco_core.flow.dis import DisFlow
    from fresco_core.flow.gmflow import GmflowFlow
    from fresco_core.flow.raft import RaftFlow
    from fresco_core.flow.weights import FLOW

    if model == "gmflow":
        return GmflowFlow.load(weights, device)
    if model == "raft":
        return RaftFlow.load(weights, device)
    FLOW.find(model, weights)  # refuses any but DIS, and weights for that
    return DisFlow(device)
