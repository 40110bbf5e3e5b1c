"""What people and file systems do to an inbox: nothing is lost, and nothing is taken too early."""

import asyncio
import os
import shutil
import threading
from pathlib import Path

import pytest
from watchdog.utils import BaseThread

from daemon import inbox as inbox_module
from daemon.job_files import JobFiles
from daemon.jobs import Arrival, Job
from fresco_core.errors import ClipError
from io_pipeline.control_source import ControlFile
from tests.daemon.test_inbox import QUIET, Told, running, scanned, until

ODD = [
    "Straße 雪 🚗",
    "with blank",
    " ",
    "quote'\"s",
    "two\nlines",
    "tab\tand \x1b[31mescape",
    "bytes\udcff\udc80",
    "x" * 251,
    "-h",
    "--output",
    "$(touch x); rm -rf *",
    "[bold]",
    "%04d",
]


def watchers() -> list[BaseThread]:
    return [thread for thread in threading.enumerate() if isinstance(thread, BaseThread)]


async def quiet() -> None:
    """Longer than a file has to be quiet."""
    await asyncio.sleep(2.5 * QUIET)


class TestStillBeingCopied:
    def test_a_writer_that_pauses_longer_than_quiet(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with running(tmp_path, rescan_seconds=0.5) as (_, told):
                (tmp_path / "a.txt").touch()
                with (tmp_path / "a.mp4").open("wb") as file:
                    for _ in range(3):
                        file.write(b"x")
                        file.flush()
                        await quiet()
                        assert told.arrived == []
                await told.until(lambda: told.arrived == ["a.mp4"])

        asyncio.run(main())

    def test_a_writer_that_opens_it_again_and_again(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with running(tmp_path) as (_, told):
                for _ in range(10):
                    with (tmp_path / "a.mp4").open("ab") as file:
                        file.write(b"x")
                    await asyncio.sleep(QUIET / 4)
                assert told.arrived == []
                await told.until(lambda: told.arrived == ["a.mp4"])

        asyncio.run(main())

    def test_copied_under_another_name(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with running(tmp_path) as (_, told):
                for name in ("a.mp4.part", ".a.mp4.x7", "a.mp4.tmp"):
                    (tmp_path / name).write_bytes(b"x")
                    await quiet()
                    assert told.arrived == []
                (tmp_path / "a.mp4.part").rename(tmp_path / "a.mp4")
                await told.until(lambda: told.arrived == ["a.mp4"])

        asyncio.run(main())


class TestPromptMinutesLater:
    def test_clip_first(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with running(tmp_path) as (_, told):
                (tmp_path / "a.mp4").touch()
                await told.until(lambda: told.prompts == [None])
                await quiet()
                (tmp_path / "a.txt").touch()
                await told.until(lambda: told.prompts == [None, "a.txt"])

        asyncio.run(main())

    def test_prompt_first(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with running(tmp_path) as (_, told):
                (tmp_path / "a.txt").touch()
                await quiet()
                assert told.arrived == []
                (tmp_path / "a.mp4").touch()
                await told.until(lambda: told.prompts == ["a.txt"])

        asyncio.run(main())


class TestMissedEvents:
    def test_dead_observer(self, tmp_path: Path) -> None:
        """Every thread of it: health turns red, files are found, and it is started again."""

        async def main() -> None:
            async with running(tmp_path, rescan_seconds=0.5) as (inbox, told):
                await scanned(inbox, told)
                for number in range(len(watchers())):
                    await until(lambda: not inbox.problem)
                    watchers()[number].stop()
                    (tmp_path / f"{number}.mp4").touch()
                    await until(lambda: "watcher had ended" in inbox.problem)
                    await told.until(lambda n=number: f"{n}.mp4" in told.arrived)
                await until(lambda: not inbox.problem)
                assert all(thread.is_alive() for thread in watchers())
                assert set(told.warnings) == {"the inbox's watcher had ended; it is started again"}

        asyncio.run(main())

    def test_events_that_never_come(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inbox_module.Inbox, "_hint", lambda *hint: None)

        async def main() -> None:
            async with running(tmp_path, rescan_seconds=0.5) as (_, told):
                await quiet()
                (tmp_path / "a.mp4").touch()
                await told.until(lambda: told.arrived == ["a.mp4"])
                (tmp_path / "a.txt").touch()
                await told.until(lambda: told.prompts == [None, "a.txt"])
                (tmp_path / "a.mp4").unlink()
                await told.until(lambda: told.gone == ["a.mp4"])

        asyncio.run(main())


class TestChangesOfMind:
    """About clips that have been told."""

    async def dropped(self, folder: Path, told: Told) -> None:
        (folder / "a.txt").touch()
        (folder / "a.mp4").write_bytes(b"x")
        await told.until(lambda: told.prompts == ["a.txt"])

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inbox_module, "SOON", 0.02)

    def test_the_same_dropped_twice(self, tmp_path: Path) -> None:
        """A copy keeps the times with -p: told once; without, it may be another: told again."""

        async def main() -> None:
            async with running(tmp_path) as (_, told):
                await self.dropped(tmp_path, told)
                times = os.stat(tmp_path / "a.mp4")
                with (tmp_path / "a.mp4").open("wb") as file:
                    file.write(b"x")
                    file.flush()
                    os.utime(file.fileno(), ns=(times.st_atime_ns, times.st_mtime_ns))
                await quiet()
                assert told.arrived == ["a.mp4"]
                (tmp_path / "a.mp4").write_bytes(b"x")
                await told.until(lambda: told.arrived == ["a.mp4"] * 2)
                assert told.gone == []

        asyncio.run(main())

    def test_changed(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with running(tmp_path) as (_, told):
                await self.dropped(tmp_path, told)
                with (tmp_path / "a.mp4").open("wb") as file:
                    file.write(b"other")
                    file.flush()
                    await quiet()
                    assert told.arrived == ["a.mp4"]
                await told.until(lambda: told.arrived == ["a.mp4"] * 2)

        asyncio.run(main())

    def test_replaced_by_renaming(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with running(tmp_path) as (_, told):
                await self.dropped(tmp_path, told)
                shutil.copy2(tmp_path / "a.mp4", tmp_path / ".new")
                (tmp_path / ".new").rename(tmp_path / "a.mp4")
                await told.until(lambda: told.arrived == ["a.mp4"] * 2)
                assert told.gone == []

        asyncio.run(main())

    def test_renamed(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with running(tmp_path) as (_, told):
                await self.dropped(tmp_path, told)
                (tmp_path / "a.mp4").rename(tmp_path / "b.mp4")
                (tmp_path / "a.txt").rename(tmp_path / "b.txt")
                await told.until(lambda: told.prompts[-1] == "b.txt" and told.gone == ["a.mp4"])
                assert told.arrived[-1] == "b.mp4"

        asyncio.run(main())

    def test_deleted(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with running(tmp_path) as (_, told):
                await self.dropped(tmp_path, told)
                (tmp_path / "a.mp4").unlink()
                await told.until(lambda: told.gone == ["a.mp4"])
                (tmp_path / "a.mp4").write_bytes(b"x")
                await told.until(lambda: told.arrived == ["a.mp4"] * 2)

        asyncio.run(main())

    def test_the_folder_is_taken_away(self, tmp_path: Path) -> None:
        inbox_folder = tmp_path / "inbox"

        async def main() -> None:
            async with running(inbox_folder, rescan_seconds=0.5) as (inbox, told):
                await until(inbox_folder.is_dir)
                await self.dropped(inbox_folder, told)
                inbox_folder.rename(tmp_path / "away")
                await until(lambda: "cannot be read" in inbox.problem)
                (tmp_path / "away").rename(inbox_folder)
                await until(lambda: not inbox.problem)
                (inbox_folder / "b.mp4").touch()
                await told.until(lambda: told.arrived[-1] == "b.mp4")
                assert told.gone == []

        asyncio.run(main())


class TestControlFiles:
    """Control maps beside a clip: nobody begins without those that are coming, or with half."""

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inbox_module, "SOON", 0.02)

    async def dropped(self, folder: Path, told: Told) -> None:
        (folder / "a.txt").touch()
        (folder / "a.depth").mkdir()
        (folder / "a.depth/0.png").write_bytes(b"x")
        (folder / "a.hed.mp4").write_bytes(b"x")
        (folder / "a.mp4").write_bytes(b"x")
        await told.until(lambda: told.controls[-1:] == [["depth", "hed"]])
        assert told.prompts[-1] == "a.txt"

    def test_late(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with running(tmp_path) as (_, told):
                (tmp_path / "a.txt").touch()
                (tmp_path / "a.mp4").touch()
                await told.until(lambda: told.prompts[-1:] == ["a.txt"])
                (tmp_path / "a.depth").mkdir()
                (tmp_path / "a.depth/0.png").touch()
                await told.until(lambda: told.controls[-1] == ["depth"])
                (tmp_path / "a.hed.mp4").touch()
                await told.until(lambda: told.controls[-1] == ["depth", "hed"])
                assert set(told.arrived) == {"a.mp4"}
                assert told.controls == [[], [], ["depth"], [], ["depth", "hed"]]

        asyncio.run(main())

    def test_still_being_written(self, tmp_path: Path) -> None:
        """A video, and a picture of a folder, by a writer that pauses longer than quiet."""

        async def main() -> None:
            async with running(tmp_path, recursive=True) as (_, told):
                (tmp_path / "a.depth").mkdir()
                with (
                    (tmp_path / "a.hed.mp4").open("wb") as video,
                    (tmp_path / "a.depth/0.png").open("wb") as picture,
                ):
                    (tmp_path / "a.txt").touch()
                    (tmp_path / "a.mp4").touch()
                    for file in (video, picture):
                        file.write(b"x")
                        file.flush()
                        await quiet()
                        assert set(told.prompts) <= {None}
                        file.close()
                await told.until(lambda: told.controls[-1] == ["depth", "hed"])

        asyncio.run(main())

    @pytest.mark.parametrize("recursive", [True, False])
    def test_changed(self, tmp_path: Path, recursive: bool) -> None:
        async def main() -> None:
            async with running(tmp_path, recursive=recursive, rescan_seconds=0.5) as (_, told):
                await self.dropped(tmp_path, told)
                for file in ("a.hed.mp4", "a.depth/0.png"):
                    before = told.controls.count(["depth", "hed"])
                    (tmp_path / file).write_bytes(b"other")
                    await told.until(
                        lambda before=before: told.controls.count(["depth", "hed"]) > before
                    )

        asyncio.run(main())

    def test_deleted(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with running(tmp_path) as (_, told):
                await self.dropped(tmp_path, told)
                (tmp_path / "a.hed.mp4").unlink()
                await told.until(lambda: told.controls[-1] == ["depth"])
                shutil.rmtree(tmp_path / "a.depth")
                await told.until(lambda: told.controls[-1] == [])
                assert (told.prompts[-1], told.gone) == ("a.txt", [])

        asyncio.run(main())


def test_odd_names(tmp_path: Path) -> None:
    for stem in ODD:
        (tmp_path / f"{stem}.mp4").touch()
        (tmp_path / f"{stem}.txt").touch()

    async def main() -> None:
        async with running(tmp_path) as (inbox, told):
            await told.until(lambda: len(told.arrived) == len(ODD))
            assert set(zip(told.arrived, told.prompts, strict=True)) == {
                (f"{stem}.mp4", f"{stem}.txt") for stem in ODD
            }
            for stem in ODD:  # by events too
                (tmp_path / f"{stem}.txt").write_bytes(b"x")
            await told.until(lambda: told.prompts.count(f"{ODD[-1]}.txt") == 2)
            await told.until(lambda: all(told.prompts.count(f"{s}.txt") == 2 for s in ODD))
            for stem in ODD:
                assert (await inbox.take(f"{stem}.mp4")).clip == tmp_path / f"{stem}.mp4"

    asyncio.run(main())


class TestWaysOut:
    """Nothing outside the inbox is taken, whatever leads there."""

    def refused(self, folder: Path, *, recursive: bool = False) -> dict[str, str]:
        found: list[Arrival] = []

        async def main() -> None:
            async with running(folder, recursive=recursive) as (inbox, told):
                change = inbox._on_change

                async def note(changes: inbox_module.Changes) -> None:
                    found.extend(changes.arrived)
                    await change(changes)

                inbox._on_change = note
                await told.until(lambda: bool(told.arrived))

        asyncio.run(main())
        return {arrival.clip.name: arrival.refused for arrival in found}

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "inbox").mkdir()
        for name in ("secret.mp4", "secret.txt", "secret.toml"):
            (tmp_path / name).write_text("secret")
        return tmp_path / "inbox"

    def test_symlink_out_of_the_inbox(self, folder: Path) -> None:
        (folder / "a.mp4").symlink_to("../secret.mp4")
        (folder / "a.txt").touch()
        assert self.refused(folder) == {"a.mp4": "is a link that leads out of the inbox"}

    @pytest.mark.parametrize("suffix", [".txt", ".toml"])
    def test_prompt_and_settings_out_of_the_inbox(self, folder: Path, suffix: str) -> None:
        for name in ("a.mp4", "a.txt"):
            (folder / name).touch()
        (folder / f"a{suffix}").unlink(missing_ok=True)
        (folder / f"a{suffix}").symlink_to(f"../secret{suffix}")
        assert self.refused(folder) == {"a.mp4": f"a{suffix} is a link that leads out of the inbox"}

    def test_control_maps_out_of_the_inbox(self, folder: Path) -> None:
        """Told, they are refused; exchanged after that, they are not opened."""
        for stem in "abc":
            (folder / f"{stem}.mp4").touch()
            (folder / f"{stem}.txt").touch()
        (folder / "a.depth.mp4").symlink_to("../secret.mp4")
        (folder / "b.depth").symlink_to("..")
        (folder / "c.depth").mkdir()
        (folder / "c.depth/0.png").symlink_to("../../secret.mp4")
        assert self.refused(folder) == {
            "a.mp4": "a.depth.mp4 is a link that leads out of the inbox",
            "b.mp4": "b.depth is a link that leads out of the inbox",
            "c.mp4": "c.depth has 0.png, a link, in it",
        }
        for name in ("a.depth.mp4", "b.depth"):
            control = ControlFile("depth", folder / name)
            job = Job(folder / "a.mp4", folder / "a.txt", "a", control_files=(control,))
            with pytest.raises(ClipError, match=rf"{name}: leads out of the inbox"):
                JobFiles(job, folder)

    def test_fifo_and_folder(self, folder: Path) -> None:
        """A FIFO that is opened never answers; one as a prompt neither."""
        os.mkfifo(folder / "a.mp4")
        (folder / "b.mp4").mkdir()
        (folder / "c.mp4").touch()
        os.mkfifo(folder / "c.txt")
        assert self.refused(folder) == {
            "a.mp4": "is a FIFO, not a file",
            "b.mp4": "is a folder, not a file",
            "c.mp4": "c.txt is a FIFO, not a file",
        }

    def test_folder_that_leads_out(self, folder: Path) -> None:
        (folder / "way").symlink_to("..")
        (folder / "a.mp4").touch()
        assert self.refused(folder, recursive=True) == {"a.mp4": ""}

    def test_exchanged_after_it_was_told(self, folder: Path) -> None:
        """Who takes the job looks again."""
        (folder / "a.mp4").touch()
        (folder / "a.txt").touch()
        assert self.refused(folder) == {"a.mp4": ""}
        (folder / "a.mp4").unlink()
        (folder / "a.mp4").symlink_to("../secret.mp4")
        with pytest.raises(ClipError, match=r"a\.mp4: leads out of the inbox"):
            JobFiles(Job(folder / "a.mp4", folder / "a.txt", "a"), folder)

    @pytest.mark.parametrize("name", ["../secret.mp4", "/etc/a.mp4", "way/secret.mp4", "../x.toml"])
    def test_by_command(self, folder: Path, name: str) -> None:
        (folder / "way").symlink_to("..")

        async def main() -> None:
            async with running(folder, recursive=True) as (inbox, _):
                with pytest.raises(ClipError):
                    await inbox.take(name)

        asyncio.run(main())
