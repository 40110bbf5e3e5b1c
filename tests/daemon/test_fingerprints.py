import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.config import Layer, merge
from daemon.fingerprints import Fingerprints, fingerprints, is_done
from daemon.job_files import JobFiles
from daemon.jobs import Job
from daemon.settings import Settings
from fresco_core.errors import ClipError
from io_pipeline.control_source import ControlFile


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "a.mp4").write_bytes(b"clip")
    (tmp_path / "a.txt").write_bytes(b"prompt")
    return Job(tmp_path / "a.mp4", tmp_path / "a.txt", "a")


def finish(folder: Path, prints: Fingerprints) -> None:
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"fingerprints": prints.to_json()}))


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


def test_without_control_files_they_are_those_of_earlier_results(job: Job) -> None:
    assert set(fingerprints(job, Settings()).to_json()) == {"clip", "prompt", "settings"}


class TestControlFiles:
    @pytest.fixture
    def controlled(self, job: Job) -> Job:
        folder = job.clip.with_name("a.depth")
        folder.mkdir()
        for number in range(3):
            (folder / f"{number}.png").write_bytes(b"%d" % number)
        video = job.clip.with_name("a.hed.mp4")
        video.write_bytes(b"hed")
        return replace(job, control_files=(ControlFile("depth", folder), ControlFile("hed", video)))

    def test_every_change_counts(self, job: Job, controlled: Job) -> None:
        folder, video = (file.path for file in controlled.control_files)
        found = [fingerprints(job, Settings()), fingerprints(controlled, Settings())]
        found.append(
            fingerprints(replace(job, control_files=(ControlFile("canny", video),)), Settings())
        )
        found.append(
            fingerprints(replace(job, control_files=(ControlFile("hed", video),)), Settings())
        )
        for change in (
            lambda: video.write_bytes(b"hed!"),
            lambda: (folder / "1.png").write_bytes(b"!"),
            lambda: (folder / "1.png").rename(folder / "7.png"),
            lambda: (folder / "2.png").rename(folder / "3.png"),  # in the order as before
            lambda: (folder / "7.png").unlink(),
            lambda: (folder / "8.png").write_bytes(b""),
        ):
            change()
            found.append(fingerprints(controlled, Settings()))
        assert len(set(found)) == len(found)
        (folder / ".hidden").write_bytes(b"x")
        assert fingerprints(controlled, Settings()) == found[-1]

    def test_as_they_are_held(self, controlled: Job, tmp_path: Path) -> None:
        files = JobFiles(controlled, tmp_path)
        assert fingerprints(files, Settings()) == fingerprints(controlled, Settings())
        files.close()

    def test_a_link_is_not_followed(self, controlled: Job, tmp_path: Path) -> None:
        (tmp_path / "secret").touch()
        (tmp_path / "a.depth/3.png").symlink_to(tmp_path / "secret")
        with pytest.raises(ClipError, match=r"3\.png: cannot be read: it is a symbolic link"):
            fingerprints(controlled, Settings())


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b"{}", b'{"fingerprints": 1}', b"\xff"])
def test_damaged_manifest_is_not_done(job: Job, tmp_path: Path, manifest: bytes) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(manifest)
    assert not is_done(folder, fingerprints(job, Settings()))
