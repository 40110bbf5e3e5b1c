"""torchvision's RAFT large (Teed and Deng, ECCV 2020).

Shape legend: N pairs of frames, H rows, W columns.
"""

from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pad
from torchvision.models.optical_flow import RAFT, raft_large

from fresco_core.errors import ModelsError
from fresco_core.flow.raft_weights import cached_raft_weights

_STRIDE = 8  # RAFT works on features at 1/8 of the frame
_SMALLEST = 128  # below this its coarsest correlation level is too small to look anything up


class RaftFlow:
    """RAFT large; each pair is computed by itself, so results do not depend on N."""

    name = "raft"

    def __init__(self, network: RAFT, device: torch.device | str = "cpu") -> None:
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
        path = Path(weights).expanduser() if weights is not None else cached_raft_weights()
        if not path.is_file():
            remedy = "run `frescod models pull`" if weights is None else "correct the path"
            raise ModelsError(f"RAFT weights {path} not found: {remedy}, or choose flow model dis")
        network = raft_large(weights=None, progress=False)
        try:
            network.load_state_dict(_read(path))
        except ModelsError:
            raise
        except Exception as error:  # a damaged file makes torch's reader fail in any way
            raise ModelsError(
                f"{path} does not fit torchvision's RAFT large: fetch it again, or choose flow "
                "model dis"
            ) from error
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
        top, bottom = _margins(rows)
        left, right = _margins(columns)
        frames_23HW = pair_23HW.to(self._device, torch.float32) / 127.5 - 1
        frames_23HW = pad(frames_23HW, (left, right, top, bottom), mode="replicate")
        flows_22HW: Tensor = self._network(frames_23HW, frames_23HW.flip(0))[-1]
        return flows_22HW[..., top : top + rows, left : left + columns].contiguous()


def _read(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor]
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ModelsError(
            f"{path} holds more than weights: use a plain state dict or .safetensors"
        ) from error
    except (SafetensorError, OSError, EOFError, ValueError, RuntimeError) as error:
        raise ModelsError(f"{path} is damaged or no state dict: fetch it again") from error
    return state


def _margins(size: int) -> tuple[int, int]:
    wanted = max(_SMALLEST, -(-size // _STRIDE) * _STRIDE)
    before = (wanted - size) // 2
    return before, wanted - size - before
