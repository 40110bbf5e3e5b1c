import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from daemon.config import Layer, merge
from daemon.fingerprints import Fingerprints, fingerprints, is_done
from daemon.jobs import Job
from daemon.settings import Settings
from fresco_core.errors import ClipError


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "a.mp4").write_bytes(b"clip")
    (tmp_path / "a.txt").write_bytes(b"prompt")
    return Job(tmp_path / "a.mp4", tmp_path / "a.txt", "a")


def finish(folder: Path, prints: Fingerprints) -> None:
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"fingerprints": asdict(prints)}))


def test_fingerprints_are_hashes_of_the_content(job: Job) -> None:
    prints = fingerprints(job, Settings())
    assert prints.clip == hashlib.sha256(b"clip").hexdigest()
    assert prints.prompt == hashlib.sha256(b"prompt").hexdigest()


def test_unreadable_clip(job: Job) -> None:
    job.clip.unlink()
    with pytest.raises(ClipError, match=r"a\.mp4: cannot be read: No such file"):
        fingerprints(job, Settings())


def test_done_until_clip_prompt_or_settings_change(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert not is_done(folder, fingerprints(job, Settings()))
    finish(folder, fingerprints(job, Settings()))
    assert is_done(folder, fingerprints(job, Settings()))

    other = merge(Layer("x", {"translation.seed": 1}))
    assert not is_done(folder, fingerprints(job, other))
    for file in (job.clip, job.prompt_file):
        before = file.read_bytes()
        file.write_bytes(before + b"!")
        assert not is_done(folder, fingerprints(job, Settings()))
        file.write_bytes(before)
    assert is_done(folder, fingerprints(job, Settings()))


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b"{}", b'{"fingerprints": 1}', b"\xff"])
def test_damaged_manifest_is_not_done(job: Job, tmp_path: Path, manifest: bytes) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(manifest)
    assert not is_done(folder, fingerprints(job, Settings()))
