"""What a job reads is what was admitted, whatever happens to names meanwhile."""

import asyncio
import gc
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from daemon import job_files
from daemon.file_identity import seen_now
from daemon.job_files import JobFiles, open_beneath
from daemon.job_settings import job_settings
from daemon.jobs import Job, Outcome
from daemon.settings import Settings
from fresco_core.errors import ClipError
from io_pipeline.control_source import ControlFile
from tests.daemon.rig import Rig
from tests.daemon.simulated import Fault, kill
from tests.daemon.test_pipeline_controls import with_maps


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    gc.collect()
    before = len(descriptors())
    yield
    assert len(descriptors()) == before


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Its files are in ``inbox``; beside that are secrets."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for suffix in ("mp4", "txt", "toml"):
        (inbox / f"a.{suffix}").write_text(f"translation.seed = 1 # {suffix}")
        (tmp_path / f"secret.{suffix}").write_text(f"translation.seed = 2 # {suffix}")
    return Job(inbox / "a.mp4", inbox / "a.txt", "a", inbox / "a.toml")


def exchange(file: Path, target: Path) -> None:
    """From now on the name is that of a link."""
    file.with_name(".link").symlink_to(target)
    file.with_name(".link").rename(file)


class TestHeld:
    def test_what_takes_their_names_is_not_read(self, job: Job, tmp_path: Path) -> None:
        files = JobFiles(job, tmp_path / "inbox")
        assert files.seen == seen_now(
            tmp_path / "inbox", job.clip, job.prompt_file, job.settings_file
        )
        assert job.settings_file is not None
        for file in (job.clip, job.prompt_file, job.settings_file):
            exchange(file, tmp_path / f"secret{file.suffix}")
        assert files.clip.read_text().endswith("seed = 1 # mp4")
        assert files.prompt_file.read_text().endswith("seed = 1 # txt")
        settings = job_settings(Settings(), job.settings_file, files.settings_file)
        assert settings.translation.seed == 1
        files.close()
        files.close()
        assert not files.clip.exists()

    def test_control_files(self, job: Job, tmp_path: Path) -> None:
        """A folder's place is taken by another, and a video's by a link."""
        inbox = tmp_path / "inbox"
        (inbox / "a.depth").mkdir()
        (inbox / "a.depth/0.png").write_bytes(b"depth")
        (inbox / "a.hed.mp4").write_bytes(b"hed")
        controls = tuple(
            ControlFile(kind, inbox / name)
            for kind, name in (("depth", "a.depth"), ("hed", "a.hed.mp4"))
        )
        job = replace(job, control_files=controls)
        files = JobFiles(job, inbox)
        assert files.seen == seen_now(inbox, *job.files)
        (inbox / "a.depth").rename(inbox / "old")
        (inbox / "a.depth").symlink_to(tmp_path)
        exchange(inbox / "a.hed.mp4", tmp_path / "secret.mp4")
        depth, hed = files.control_files
        assert (depth.kind, (depth.path / "0.png").read_bytes()) == ("depth", b"depth")
        assert (hed.kind, hed.path.read_bytes()) == ("hed", b"hed")
        assert files.named(f"{depth.path}/0.png: bad") == f"{inbox}/a.depth/0.png: bad"
        files.close()
        assert not depth.path.exists()
        with pytest.raises(ClipError, match=r"a\.depth: leads out of the inbox"):
            JobFiles(job, inbox)

    def test_without_settings(self, job: Job, tmp_path: Path) -> None:
        inbox = tmp_path / "inbox"
        files = JobFiles(Job(job.clip, job.prompt_file, "a"), inbox)
        assert files.settings_file is None
        assert files.seen == seen_now(inbox, job.clip, job.prompt_file, None)
        files.close()

    def test_texts_tell_their_names(self, job: Job, tmp_path: Path) -> None:
        files = JobFiles(job, tmp_path / "inbox")
        other = f"{files.clip}0"
        text = f"{files.clip}: broken; {files.prompt_file}; {other}"
        assert files.named(text) == f"{job.clip}: broken; {job.prompt_file}; {other}"
        files.close()

    def test_by_name(self, job: Job) -> None:
        files = JobFiles(job)
        assert (files.clip, files.prompt_file) == (job.clip, job.prompt_file)
        assert files.settings_file == job.settings_file
        assert files.named(f"{job.clip}: broken") == f"{job.clip}: broken"

    def test_nobody_keeps_what_nobody_has(self, job: Job, tmp_path: Path) -> None:
        assert JobFiles(job, tmp_path / "inbox").clip
        gc.collect()

    @pytest.mark.parametrize("suffix", ["mp4", "txt", "toml"])
    def test_refused(self, job: Job, tmp_path: Path, suffix: str) -> None:
        file = job.clip.with_suffix(f".{suffix}")
        for target, why in (
            (tmp_path / f"secret.{suffix}", "leads out of the inbox"),
            (tmp_path / "inbox/absent", "cannot be read: No such file"),
            (tmp_path / "inbox", "leads out of the inbox"),
        ):
            exchange(file, target)
            with pytest.raises(ClipError, match=rf"a\.{suffix}: {why}"):
                JobFiles(job, tmp_path / "inbox")


class TestOpenBeneath:
    def test_links_that_stay_inside(self, job: Job, tmp_path: Path) -> None:
        inbox = tmp_path / "inbox"
        (inbox / "sub").mkdir()
        (inbox / "sub/b.mp4").symlink_to("../a.mp4")
        (inbox / "way").symlink_to("sub")
        (tmp_path / "linked").symlink_to(inbox)
        for folder, path in (
            (inbox, inbox / "way/b.mp4"),
            (inbox, tmp_path / "linked/sub/b.mp4"),
            (tmp_path / "linked", inbox / "a.mp4"),
            (Path("/"), inbox / "a.mp4"),
        ):
            descriptor = open_beneath(folder, path)
            assert os.path.samestat(os.fstat(descriptor), job.clip.stat())
            os.close(descriptor)

    def test_what_is_no_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.mp4")
        (tmp_path / "b.mp4").mkdir()
        for name in ("a.mp4", "b.mp4"):
            with pytest.raises(OSError, match="it is no regular file"):
                open_beneath(tmp_path, tmp_path / name)

    @pytest.mark.parametrize("exchanged", ["sub", "sub/a.mp4"])
    def test_exchanged_between_looking_and_opening(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanged: str
    ) -> None:
        """What a name meant when it was looked at is opened, or nothing."""
        for folder in (tmp_path / "inbox/sub", tmp_path / "secret"):
            folder.mkdir(parents=True)
            (folder / "a.mp4").touch()
        real = os.path.realpath

        def late(path: Path, *, strict: bool = False) -> str:
            found = real(path, strict=strict)
            if path == clip:
                (tmp_path / "inbox" / exchanged).rename(tmp_path / "old")
                target = tmp_path / "secret" / Path(exchanged).relative_to("sub")
                (tmp_path / "inbox" / exchanged).symlink_to(target)
            return found

        clip = tmp_path / "inbox/sub/a.mp4"
        monkeypatch.setattr(job_files.os.path, "realpath", late)
        with pytest.raises(OSError, match=r"a symbolic link|Not a directory"):
            open_beneath(tmp_path / "inbox", clip)


class TestInWork:
    def test_names_that_change_once_it_is_admitted(self, tmp_path: Path) -> None:
        """The clip is gone, the prompt another's; then the reader dies and opens it anew."""
        inbox = tmp_path / "inbox"
        inbox.mkdir()
        (tmp_path / "secret.txt").write_text("a secret")

        def admit(job: Job) -> JobFiles:
            files = JobFiles(job, inbox)
            exchange(job.prompt_file, tmp_path / "secret.txt")
            job.clip.unlink()
            return files

        rig = Rig(inbox)
        job = rig.job("a", frames=30)
        (result,) = rig.run(job, admit=admit, faults=[Fault("read 1", kill)])
        assert result.outcome is Outcome.DONE, result.reason
        told = rig.manifest()
        assert told["prompt"]["positive"] == "a car"
        assert told["clip"]["file"] == "a.mp4"
        assert told["clip"]["frames"] == 30
        assert any("read again" in text for text in told["warnings"])
        assert "/proc/" not in str(told)

    def test_a_folder_of_control_maps_that_is_exchanged(self, tmp_path: Path) -> None:
        """Its pictures are read through what is held, by the reader's process too."""
        inbox = tmp_path / "inbox"
        inbox.mkdir()
        rig = Rig(inbox)
        job = with_maps(rig)

        def admit(job: Job) -> JobFiles:
            files = JobFiles(job, inbox)
            (inbox / "a.canny").rename(tmp_path / "away")
            (inbox / "a.canny").mkdir()
            return files

        (result,) = rig.run(job, admit=admit)
        assert result.outcome is Outcome.DONE, result.reason
        told = rig.manifest()
        assert told["control_files"] == {"a.canny": "canny"}
        assert not rig.events("map")
        assert "/proc/" not in str(told)

        (result,) = rig.run(job, admit=lambda job: JobFiles(job, inbox))
        assert result.outcome is Outcome.FAILED
        assert result.reason.startswith(f"{inbox}/a.canny: 0 control maps for a clip of 18 frames")

    def test_messages_name_the_clip(self, tmp_path: Path) -> None:
        rig = Rig(tmp_path)
        job = rig.job()
        job.clip.write_bytes(bytes(5000))
        (result,) = rig.run(job, admit=lambda job: JobFiles(job, tmp_path))
        assert result.outcome is Outcome.FAILED
        assert result.reason.startswith(f"{job.clip}: not a video that can be read")

    def test_a_run_that_is_cancelled(self, tmp_path: Path) -> None:
        rig = Rig(tmp_path)
        opened: list[JobFiles] = []

        def admit(job: Job) -> JobFiles:
            opened.append(JobFiles(job, tmp_path))
            return opened[-1]

        async def cancel(run: "asyncio.Task[None]") -> None:
            while not rig.events("step 0"):
                await asyncio.sleep(0.01)
            assert opened[0].clip.exists()
            run.cancel()

        with pytest.raises(asyncio.CancelledError):
            rig.run(rig.job(), admit=admit, beside=cancel)
        assert not opened[0].clip.exists()
