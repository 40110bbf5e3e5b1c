"""Optical flow models behind one protocol.

Shape legend: N pairs of frames, H rows, W columns.
"""

from typing import TYPE_CHECKING, Protocol

from fresco_core.errors import ConfigError

if TYPE_CHECKING:  # the inverse search and the place of weights can be had without torch
    import torch
    from torch import Tensor

FLOW_MODELS = ("dis", "raft")


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
        model: ``"dis"`` (OpenCV, on the CPU, no weights) or ``"raft"`` (torchvision's RAFT large).
        weights: for RAFT, a ``.pth`` or ``.safetensors`` state dict; None takes torchvision's own
            weights from torch's hub cache. DIS has none.
        device: where the network runs and where results are put.

    Raises:
        ConfigError: unknown model, or weights given to a model that has none.
        ModelsError: weights missing, damaged or of another network.
    """
    from fresco_core.flow.dis import DisFlow
    from fresco_core.flow.raft import RaftFlow

    if model == "dis":
        if weights is not None:
            raise ConfigError(f"flow model dis takes no weights: remove {weights} or choose raft")
        return DisFlow(device)
    if model == "raft":
        return RaftFlow.load(weights, device)
    raise ConfigError(f"unknown flow model {model!r}: choose one of {', '.join(FLOW_MODELS)}")
