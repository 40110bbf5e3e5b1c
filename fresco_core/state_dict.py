"""State dicts: read from a file without running code, and put into a network."""

from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fresco_core.errors import ModelsError
from fresco_core.network_files import network_of

Network = TypeVar("Network", bound=nn.Module)

_WRAPPERS = ("model", "state_dict")  # under which training scripts save the weights


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU.

    Args:
        path: ``.safetensors``, or what `torch.save` wrote: a state dict, or one under ``"model"``
            or ``"state_dict"``, with or without the names' prefix of data parallel training.

    Raises:
        ModelsError: the file is damaged, no state dict, or has more in it than weights.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ModelsError(
            f"{path} holds more than weights: use a plain state dict or .safetensors"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # damaged pickles make their reader fail in any way
        raise ModelsError(f"{path} is damaged or no state dict: fetch it again") from error
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        raise ModelsError(f"{path} is damaged or no state dict: fetch it again")
    if all(name.startswith("module.") for name in found):
        return {name.removeprefix("module."): tensor for name, tensor in found.items()}
    return dict(found)


def load_network(
    path: Path, build: Callable[[Mapping[str, Tensor]], Network], title: str, remedy: str
) -> Network:
    """A network with the weights of a file, float32, frozen, on the CPU.

    Args:
        build: makes the network, without memory of its own, from the state dict's shapes; names
            that it misses may raise `KeyError`.
        title: the network's name in errors.
        remedy: what else could be done, ending an error's sentence.

    Raises:
        ModelsError: as `read_state_dict`; or the file holds another network.
    """
    state = read_state_dict(path)
    try:
        with torch.device("meta"):
            network = build(state)
        network.load_state_dict(state, assign=True)
    except Exception as error:  # names and shapes of another network fail in any way
        found = network_of(state)
        held = f"it holds {found or 'an unknown network'}, or another form of it"
        if found is not None and found != title:
            held = f"it holds {found}"
        raise ModelsError(f"{path} does not fit {title} ({held}): {remedy}") from error
    return network.float().eval().requires_grad_(False)
