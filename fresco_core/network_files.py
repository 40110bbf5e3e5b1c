"""Which network a file of weights holds, told by the names of its tensors (needs no torch).

No weights are read and nothing of a pickle is run: its strings are looked at where they stand.
"""

import os
import pickletools
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

from fresco_core.checkpoint import tensor_shapes
from fresco_core.errors import ModelsError

# Tensors by which a network is known; those of one may be part of another's, so order matters.
_MARKS = {
    "GMFlow": ("feature_flow_attn.q_proj.weight", "backbone.conv1.weight"),
    "torchvision's RAFT large": ("mask_predictor.conv.weight", "feature_encoder.conv.weight"),
    "torchvision's RAFT small": (
        "feature_encoder.conv.weight",
        "update_block.flow_head.conv1.bias",
    ),
    "RAFT in its authors' own format": ("fnet.conv1.weight", "cnet.conv1.weight"),
    "EGNet": ("merge1.trans.0.0.weight", "convert.convert0.0.0.weight"),
    "a ControlNet": ("controlnet_cond_embedding.conv_in.weight",),
    "a Stable Diffusion checkpoint": ("model.diffusion_model.input_blocks.0.0.weight",),
    "a Stable Diffusion UNet": ("time_embedding.linear_1.weight", "conv_in.weight"),
    "a VAE": ("decoder.conv_in.weight", "encoder.conv_in.weight"),
    "a MiDaS depth network": ("pretrained.model.cls_token", "scratch.refinenet1.out_conv.weight"),
    "a HED detector": ("block1.convs.0.weight", "block5.projection.weight"),
    "a ResNet for classification": ("layer4.0.conv1.weight", "fc.weight"),
}
GMFLOW, RAFT, EGNET = "GMFlow", "torchvision's RAFT large", "EGNet"
HED, MIDAS = "a HED detector", "a MiDaS depth network"

_PARALLEL = "module."  # what torch's DataParallel puts before every name
_OLD_MAGIC = 0x1950A86A20F9469CFC6C  # begins torch's files from before 1.6
_OLD_HEADERS = 3  # pickles before that of the tensors' names: magic, version, machine


def checkpoints_folder() -> Path:
    """Where torch's hub keeps weights, present or not."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home, "hub", "checkpoints").expanduser()


def network_of(names: Collection[str]) -> str | None:
    """The network that has tensors of these names, as an error calls it; None: unknown."""
    plain = {name.removeprefix(_PARALLEL) for name in names}
    return next((title for title, marks in _MARKS.items() if plain.issuperset(marks)), None)


def network_in(path: Path) -> str | None:
    """The network whose weights a file holds; None: unknown.

    Args:
        path: a ``.safetensors`` file, or what `torch.save` wrote, of any version.

    Raises:
        ModelsError: the file is missing, truncated or neither of both.
    """
    if path.suffix == ".safetensors":
        return network_of(tensor_shapes(path))
    try:
        with path.open("rb") as file:
            return network_of(_zipped(file) if zipfile.is_zipfile(file) else _old(file))
    except PermissionError as error:
        raise ModelsError(
            f"{path} may not be read by this user: correct its permissions"
        ) from error
    except Exception as error:  # damaged pickles make their reader fail in any way
        raise ModelsError(f"{path} is damaged or no state dict: fetch it again") from error


def require_network(path: Path, wanted: str, remedy: str) -> None:
    """See to it that a file holds the weights of a network.

    Args:
        wanted: one of the constants of this module.
        remedy: ends the error's sentence.

    Raises:
        ModelsError: the file is missing or damaged, or holds something else.
    """
    found = network_in(path)
    if found != wanted:
        raise ModelsError(f"{path} holds {found or 'an unknown network'}, not {wanted}: {remedy}")


def _zipped(file: IO[bytes]) -> set[str]:
    with zipfile.ZipFile(file) as archive:
        pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        with archive.open(pickled) as names:
            return _strings(names)


def _old(file: IO[bytes]) -> set[str]:
    file.seek(0)
    magic = [argument for _, argument, _ in pickletools.genops(file) if isinstance(argument, int)]
    if _OLD_MAGIC not in magic:
        raise ValueError("not written by torch")
    for _ in range(_OLD_HEADERS - 1):
        _strings(file)
    return _strings(file)


def _strings(file: IO[bytes]) -> set[str]:
    """All strings of the pickle that begins here; the file is then at its end."""
    return {argument for _, argument, _ in pickletools.genops(file) if isinstance(argument, str)}
