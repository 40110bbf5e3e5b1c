"""Files of the Hugging Face hub: from the local cache, or downloaded into it."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from fresco_core.errors import ModelsError, brief

PULL_COMMAND = "frescod models pull"
PULL = f"run `{PULL_COMMAND}` with a network"
_ANSWER_SECONDS = 10  # how long the hub may take to answer before it counts as unreachable


class HubError(ModelsError):
    """The hub does not give what this machine lacks; ``reason`` tells why, in a few words."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(
            f"{what} {absence(what)} and the hub does not give it ({reason}): "
            f"{PULL}, or give a local path"
        )
        self.reason = reason


def is_hub_id(source: str) -> bool:
    """Whether ``source`` has the form ``owner/name`` and is no file's name."""
    is_file_name = Path(source).suffix in {".safetensors", ".ckpt", ".bin", ".pt", ".pth"}
    return not is_file_name and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) is not None


def absence(source: str) -> str:
    """That a hub id, which precedes it, is not there; it may have been meant for a path."""
    folder = source.partition("/")[0]
    if Path(folder).is_dir():
        return f"is not on this machine (neither in the folder {folder} here nor from the hub)"
    return "is not on this machine"


def cached_folder(repository: str) -> Path | None:
    """The cached files of a repository, perhaps not all of them; None if there are none."""
    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def cached_file(repository: str, name: str) -> Path | None:
    """One cached file of a repository, or None."""
    try:
        return Path(hf_hub_download(repository, name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def fetch_folder(repository: str, choose: Callable[[list[str]], list[str]]) -> Path:
    """Download part of a repository into the cache; what is there already is not loaded again.

    Args:
        repository: ``owner/name``.
        choose: of all file names of the repository, those wanted.

    Raises:
        HubError: the hub cannot be reached in ten seconds, has no such repository or wants a
            login.
        ModelsError: the repository has not what is wanted.
    """

    def download() -> Path:
        names = [
            file.rfilename
            for file in HfApi().model_info(repository, timeout=_ANSWER_SECONDS).siblings or []
        ]
        return Path(
            snapshot_download(
                repository, allow_patterns=choose(names), etag_timeout=_ANSWER_SECONDS
            )
        )

    return _ask(repository, download)


def fetch_file(repository: str, name: str) -> Path:
    """Download one file of a repository into the cache unless it is there. Raises: see above."""

    def download() -> Path:
        HfApi().model_info(repository, timeout=_ANSWER_SECONDS)
        return Path(hf_hub_download(repository, name, etag_timeout=_ANSWER_SECONDS))

    return cached_file(repository, name) or _ask(f"{repository}/{name}", download)


def _ask(what: str, download: Callable[[], Path]) -> Path:
    try:
        return download()
    except ModelsError:
        raise
    # The library's errors are those of whichever HTTP client it was built on.
    except Exception as error:
        raise HubError(what, _reason(error)) from error


def _reason(error: Exception) -> str:
    if os.environ.get("HF_HUB_OFFLINE"):
        return "HF_HUB_OFFLINE is set"
    if "Connect" in type(error).__name__ or "Timeout" in type(error).__name__:
        return "no connection"
    return brief(error, 160)
