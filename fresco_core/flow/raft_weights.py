"""torchvision's weights of RAFT large: where they lie (needs no torch), and fetching them."""

from pathlib import Path

from fresco_core.errors import ModelsError
from fresco_core.network_files import checkpoints_folder

URL = "https://download.pytorch.org/models/raft_large_C_T_V1-22a6c225.pth"


def cached_raft_weights() -> Path:
    """Where torch's hub cache keeps the weights, present or not."""
    return checkpoints_folder() / URL.rsplit("/", 1)[1]


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
