"""Where things are in a staging folder.

* ``identity.json``: what the result is made from.
* ``checkpoints/0000.safetensors``: a translated window.
* ``windows/0000/``: the encoded pictures of a window, and the batches in which it was translated;
  there when they are complete.
* ``result/``: becomes the result folder.

Whatever is not complete has a name that ends in ``.tmp``.
"""

from pathlib import Path

IDENTITY = "identity.json"
CHECKPOINTS = "checkpoints"
WINDOWS = "windows"
BATCHES = "batches.json"


def checkpoint_path(staging: Path, index: int) -> Path:
    """The file of a translated window."""
    return staging / CHECKPOINTS / f"{index:04d}.safetensors"


def window_folder(staging: Path, index: int) -> Path:
    """The folder of an encoded window."""
    return staging / WINDOWS / f"{index:04d}"


def result_folder(staging: Path) -> Path:
    """The folder that is shown when it is complete."""
    return staging / "result"


def keys_folder(staging: Path) -> Path:
    """The result's key frames."""
    return result_folder(staging) / "keys"
