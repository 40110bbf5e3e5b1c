"""Tiny models on disk, and a hub that is not there."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import LocalEntryNotFoundError

from fresco_core import hub
from fresco_core.tiny_model import make_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def base(tiny: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the base model to spoil."""
    return Path(shutil.copytree(tiny[0], tmp_path / "base"))


@pytest.fixture
def controlnet(tiny: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the ControlNet to spoil."""
    return Path(shutil.copytree(tiny[1], tmp_path / "controlnet"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise ConnectionError("asked the hub")

    monkeypatch.setattr(HfApi, "model_info", refuse)
    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    monkeypatch.setattr(hub, "snapshot_download", refuse)


@pytest.fixture
def fake_cache(monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A hub cache with the given repositories, and no network."""
    repositories: dict[str, Path] = {}

    def snapshot(repository: str, *, local_files_only: bool = False, **options: object) -> str:
        if local_files_only and repository not in repositories:
            raise LocalEntryNotFoundError("not there")
        return str(repositories[repository])

    def refuse(*args: object, **options: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setattr(HfApi, "model_info", refuse)
    return repositories
