"""torchvision's weights of RAFT large: where they lie (needs no torch), and fetching them."""

import os
from pathlib import Path

from fresco_core.errors import ModelsError

URL = "https://download.pytorch.org/models/raft_large_C_T_V1-22a6c225.pth"


def cached_raft_weights() -> Path:
    """Where torch's hub cache keeps the weights, present or not."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home, "hub", "checkpoints", URL.rsplit("/", 1)[1]).expanduser()


def pull_raft_weights() -> Path:
    """Download the weights into torch's hub cache unless they are there.

    Raises:
        ModelsError: they cannot be downloaded.
    """
    path = cached_raft_weights()
    if not path.is_file():
        import torch

        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(
                URL, str(path), hash_prefix=path.stem.rsplit("-", 1)[1], progress=False
            )
        except (OSError, RuntimeError) as error:
            raise ModelsError(
                f"cannot download RAFT weights ({error}): check the network, or copy {URL} to "
                f"{path}"
            ) from error
    return path
