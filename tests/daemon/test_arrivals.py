"""What is told of an inbox, by a clock that the tests turn."""

import errno
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daemon import inbox_files
from daemon.arrivals import PORTION, Arrivals
from daemon.file_identity import seen_now
from daemon.inbox_files import LOST
from daemon.job_files import JobFiles
from daemon.jobs import Arrival, Job
from daemon.settings import Inbox as InboxSettings
from fresco_core.errors import ClipError
from io_pipeline.control_source import ControlFile

QUIET = 2.0


class Rig:
    """An inbox folder, what is told of it, and the time."""

    def __init__(self, folder: Path, known: dict[Path, str] | None = None, **settings: object):
        self.folder = folder
        self.time = 1000.0
        self.warnings: list[str] = []
        self.gone: list[str] = []
        self.arrivals = Arrivals(
            folder,
            InboxSettings.model_validate({"quiet_seconds": QUIET, **settings}),
            known or {},
            self.warnings.append,
            lambda: self.time,
        )

    def drop(self, *names: str, content: bytes = b"x") -> None:
        for name in names:
            (self.folder / name).write_bytes(content)

    def told(self) -> list[Arrival]:
        arrived: list[Arrival] = []
        while (changes := self.arrivals.changes()) is not None:
            arrived += changes.arrived
            self.gone += [str(path.relative_to(self.folder)) for path in changes.gone]
        return arrived

    def scanned(self) -> list[Arrival]:
        assert self.arrivals.scan() == ""
        return self.told()

    def looked(self, after: float = 0.0, **hints: bool | None) -> list[Arrival]:
        """``hints``: names with _ instead of their dot."""
        self.time += after
        self.arrivals.look({name.replace("_", "."): kind for name, kind in hints.items()})
        return self.told()

    def complete(self) -> list[Arrival]:
        """All that is told when everything has been quiet."""
        return self.scanned() + self.looked(QUIET)

    def one(self) -> Arrival:
        (arrival,) = self.complete()
        return arrival


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def rig(folder: Path) -> Rig:
    return Rig(folder)


@pytest.fixture
def recursive(folder: Path) -> Rig:
    return Rig(folder, recursive=True)


def clips(arrivals: list[Arrival]) -> list[str]:
    return [arrival.clip.name for arrival in arrivals]


class TestComplete:
    def test_told_when_quiet_for_long_enough(self, rig: Rig) -> None:
        rig.drop("a.mp4", "a.txt", "a.toml")
        assert rig.scanned() == []
        assert rig.arrivals.due == rig.time + QUIET
        assert rig.looked(QUIET - 0.1) == []
        (arrival,) = rig.looked(0.1)
        assert arrival.clip == rig.folder / "a.mp4"
        assert arrival.prompt_file == rig.folder / "a.txt"
        assert arrival.settings_file == rig.folder / "a.toml"
        assert (arrival.refused, arrival.priority) == ("", None)
        assert rig.complete() == []
        assert rig.arrivals.due == float("inf")

    def test_what_grows_is_waited_for(self, rig: Rig) -> None:
        rig.drop("a.mp4")
        rig.scanned()
        for size in range(2, 5):
            rig.drop("a.mp4", content=b"x" * size)
            assert rig.looked(QUIET) == []
        assert clips(rig.looked(QUIET)) == ["a.mp4"]

    def test_what_is_open_is_waited_for_and_told_at_once_when_closed(self, rig: Rig) -> None:
        with (rig.folder / "a.mp4").open("wb") as file:
            file.write(b"x")
            file.flush()
            assert rig.complete() == []
            assert rig.looked(3600) == []
            assert rig.time < rig.arrivals.due <= rig.time + 1
        assert clips(rig.looked(a_mp4=False)) == ["a.mp4"]

    def test_without_the_event_it_is_found_soon(self, rig: Rig) -> None:
        with (rig.folder / "a.mp4").open("wb"):
            rig.complete()
        assert clips(rig.looked(1.0)) == ["a.mp4"]

    def test_in_natural_order(self, rig: Rig) -> None:
        rig.drop("clip10.mp4", "clip2.mp4", "Clip1.mp4")
        assert clips(rig.complete()) == ["Clip1.mp4", "clip2.mp4", "clip10.mp4"]

    def test_gone_before_it_was_complete(self, rig: Rig) -> None:
        rig.drop("a.mp4")
        rig.scanned()
        (rig.folder / "a.mp4").unlink()
        assert rig.looked(QUIET) == []
        assert rig.arrivals.due == float("inf")
        assert rig.scanned() == []
        assert rig.gone == []


class TestBlindKernel:
    """Where only events tell who is writing."""

    @pytest.fixture(autouse=True)
    def blind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inbox_files, "open_for_writing", lambda path: None)

    def test_written_to_and_not_closed(self, rig: Rig) -> None:
        rig.drop("a.mp4")
        rig.looked(a_mp4=True)
        assert rig.looked(QUIET) == rig.looked(LOST - QUIET - 1) == []
        assert clips(rig.looked(a_mp4=False)) == ["a.mp4"]

    def test_made_and_empty(self, rig: Rig) -> None:
        rig.drop("a.mp4", content=b"")
        rig.looked(a_mp4=None)
        assert rig.looked(QUIET) == []
        assert clips(rig.looked(a_mp4=False)) == ["a.mp4"]

    def test_linked_or_moved_here(self, rig: Rig) -> None:
        rig.drop("a.mp4")
        rig.looked(a_mp4=None)
        assert clips(rig.looked(QUIET)) == ["a.mp4"]

    def test_the_event_of_closing_may_be_lost(self, rig: Rig) -> None:
        rig.drop("a.mp4")
        rig.looked(a_mp4=True)
        rig.looked(QUIET)
        assert rig.arrivals.due == rig.time - QUIET + LOST
        assert clips(rig.looked(LOST - QUIET)) == ["a.mp4"]

    def test_setting_the_times_is_no_writing(self, rig: Rig) -> None:
        rig.drop("a.mp4")
        os.utime(rig.folder / "a.mp4", (1, 1))
        rig.looked(a_mp4=True)
        assert clips(rig.looked(QUIET)) == ["a.mp4"]


class TestPrompts:
    def test_prompt_after_the_clip(self, rig: Rig) -> None:
        rig.drop("a.mp4")
        first = rig.one()
        assert first.prompt_file is None
        rig.drop("a.txt")
        second = rig.one()
        assert second.prompt_file == rig.folder / "a.txt"
        assert first.seen != second.seen

    def test_prompt_before_the_clip(self, rig: Rig) -> None:
        rig.drop("a.txt")
        assert rig.complete() == []
        rig.drop("a.mp4")
        assert rig.one().prompt_file == rig.folder / "a.txt"

    def test_incomplete_prompt(self, rig: Rig) -> None:
        rig.drop("a.mp4")
        rig.scanned()
        rig.time += 1
        rig.drop("a.txt")
        rig.scanned()
        (waits,) = rig.looked(1)
        assert waits.prompt_file is None
        (ready,) = rig.looked(1)
        assert ready.prompt_file == rig.folder / "a.txt"

    @pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.toml"])
    def test_a_change_of_any_file_is_told(self, rig: Rig, name: str) -> None:
        rig.drop("a.mp4", "a.txt", "a.toml")
        before = rig.one()
        rig.drop(name, content=b"changed")
        after = rig.complete()[-1]
        assert after.seen != before.seen
        assert after.prompt_file
        assert after.settings_file

    @pytest.mark.parametrize("name", ["a.txt", "a.toml"])
    def test_nobody_begins_with_half_a_file(self, rig: Rig, name: str) -> None:
        rig.drop("a.mp4", "a.txt", "a.toml")
        rig.complete()
        with (rig.folder / name).open("wb") as file:
            file.write(b"half")
            file.flush()
            (waits,) = rig.looked(**{name.replace(".", "_"): True})
            assert waits.prompt_file is None
            assert rig.looked(60) == []
        (ready,) = rig.looked(QUIET)
        assert ready.prompt_file

    def test_prompt_taken_away(self, rig: Rig) -> None:
        rig.drop("a.mp4", "a.txt")
        rig.complete()
        (rig.folder / "a.txt").unlink()
        (waits,) = rig.scanned()
        assert waits.prompt_file is None
        assert rig.gone == []

    def test_clips_with_one_stem_share_it(self, rig: Rig) -> None:
        rig.drop("a.mp4", "a.mov", "a.txt")
        found = rig.complete()
        assert sorted(clips(found)) == ["a.mov", "a.mp4"]
        assert all(arrival.prompt_file for arrival in found)

    def test_accents_are_paired_however_they_are_stored(self, rig: Rig) -> None:
        one, two = (unicodedata.normalize(form, "Säntis") for form in ("NFC", "NFD"))
        rig.drop(f"{one}.mp4", f"{two}.TXT")
        assert rig.one().prompt_file == rig.folder / f"{two}.TXT"


class TestKnown:
    def test_what_is_known_is_not_told(self, rig: Rig) -> None:
        rig.drop("a.mp4", "a.txt", "b.mp4")
        known = {arrival.clip: arrival.seen for arrival in rig.complete()}
        again = Rig(rig.folder, known)
        assert again.scanned() == []
        assert again.arrivals.due == float("inf")  # complete, because it was
        rig.drop("b.mp4", content=b"changed")
        assert clips(again.complete()) == ["b.mp4"]

    def test_what_is_not_there_any_more_is_gone(self, rig: Rig) -> None:
        rig.drop("b.mp4")
        elsewhere = rig.folder.parent / "elsewhere.mp4"
        known = {rig.folder / "a.mp4": "?", rig.folder / "b.mp4": "?", elsewhere: "?"}
        again = Rig(rig.folder, known)
        again.scanned()
        assert again.gone == ["a.mp4"]
        again.scanned()
        assert again.gone == ["a.mp4"]

    def test_told_again_on_request(self, rig: Rig) -> None:
        rig.drop("a.mp4", "b.mp4")
        rig.complete()
        rig.arrivals.tell_again(rig.folder / "a.mp4")
        rig.arrivals.tell_again(rig.folder / "absent.mp4")
        assert clips(rig.looked()) == ["a.mp4"]
        rig.arrivals.tell_again(rig.folder / "a.mp4")
        (rig.folder / "a.mp4").unlink()
        rig.scanned()
        assert rig.gone == ["a.mp4"]

    def test_thousands_are_told_in_portions(self, rig: Rig) -> None:
        rig.drop(*(f"{number}.mp4" for number in range(PORTION + 1)))
        rig.arrivals.scan()
        rig.time += QUIET
        rig.arrivals.look({})
        first, second = rig.arrivals.changes(), rig.arrivals.changes()
        assert first
        assert second
        assert (len(first.arrived), len(second.arrived)) == (PORTION, 1)
        assert rig.arrivals.changes() is None


class TestRefused:
    def test_with_a_reason_and_never_opened(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[str] = []
        monkeypatch.setattr(inbox_files, "open_for_writing", opened.append)
        os.mkfifo(rig.folder / "a.mp4")
        assert rig.one().refused == "is a FIFO, not a file"
        assert rig.complete() == []
        assert opened == []

    @pytest.mark.parametrize("name", ["a\n.txt", "a\n.toml"])
    def test_for_a_file_that_belongs_to_it(self, rig: Rig, name: str) -> None:
        rig.drop("a\n.mp4", "a\n.txt")
        (rig.folder / name).unlink(missing_ok=True)
        (rig.folder / name).symlink_to("/etc/passwd")
        shown = name.replace("\n", "\\n")
        assert rig.one().refused == f"{shown} is a link that leads out of the inbox"

    def test_put_right(self, rig: Rig) -> None:
        (rig.folder / "a.mp4").symlink_to("b")
        assert rig.one().refused == "is a link that leads to no file"
        rig.drop("b")
        assert rig.one().refused == ""

    @pytest.mark.parametrize("name", ["a.mp4", "a.txt"])
    def test_cannot_be_read(self, rig: Rig, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: str) -> bool:
            if path.endswith(name):
                raise PermissionError(13, "Permission denied")
            return False

        rig.drop("a.mp4", "a.txt")
        reason = "cannot be read: Permission denied"
        with monkeypatch.context() as patch:
            patch.setattr(inbox_files, "open_for_writing", refuse)
            refusal = rig.one().refused
            assert refusal == (reason if name == "a.mp4" else f"a.txt {reason}")
            assert rig.complete() == []
            known = {rig.folder / "a.mp4": Rig(rig.folder).one().seen}
            assert Rig(rig.folder, known).complete() == []
        assert rig.complete()[-1].refused == ""


class TestNames:
    def test_left_alone(self, rig: Rig) -> None:
        rig.drop(".a.mp4", "b.mp4.part", "c.mp4~", "notes.txt", "d.png", "mp4", ".mp4")
        assert rig.complete() == []

    def test_ignored_by_setting(self, folder: Path) -> None:
        rig = Rig(folder, ignore=("draft*", "*.mov"))
        rig.drop("draft1.mp4", "a.mov", "a.mp4", "mydraft.mp4")
        assert clips(rig.complete()) == ["a.mp4", "mydraft.mp4"]
        assert rig.looked(QUIET, draft1_mp4=None) == []
        assert "draft1.mp4" in clips(Rig(folder, ignore=()).complete())

    def test_sub_folders_by_setting(self, rig: Rig, recursive: Rig) -> None:
        for folder in ("sub/deep", ".hidden", "x.part", "dir.mp4"):
            (rig.folder / folder).mkdir(parents=True)
            rig.drop(f"{folder}/a.mp4")
        rig.drop("a.txt", "sub/deep/a.txt")
        assert clips(rig.complete()) == ["dir.mp4"]
        folder, clip = recursive.complete()
        assert folder.refused
        assert clip.clip == rig.folder / "sub/deep/a.mp4"
        assert clip.prompt_file == rig.folder / "sub/deep/a.txt"
        for name in (".hidden/a.mp4", "x.part/a.mp4", "dir.mp4/a.mp4"):
            recursive.arrivals.look({name: None})
        assert recursive.complete() == []
        shutil.rmtree(rig.folder / "sub")
        recursive.scanned()
        assert recursive.gone == ["sub/deep/a.mp4"]

    def test_links_to_folders_are_not_followed(self, recursive: Rig) -> None:
        (recursive.folder / "sub").mkdir()
        recursive.drop("sub/a.mp4")
        (recursive.folder / "again").symlink_to("sub")
        (recursive.folder / "out").symlink_to("/")
        assert [a.clip for a in recursive.complete()] == [recursive.folder / "sub/a.mp4"]


class TestUnreadableFolders:
    def test_nothing_is_gone_when_the_folder_cannot_be_read(self, rig: Rig) -> None:
        rig.drop("a.mp4")
        rig.complete()
        rig.folder.rename(rig.folder.with_name("away"))
        problem = rig.arrivals.scan()
        assert problem.startswith(f"{rig.folder} cannot be read: No such file")
        assert rig.told() == []
        assert rig.gone == []
        rig.folder.with_name("away").rename(rig.folder)
        assert rig.complete() == []
        assert rig.gone == []

    def test_nothing_is_gone_when_another_disk_was_mounted_there(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rig.drop("a.mp4")
        rig.complete()
        (rig.folder / "a.mp4").rename(rig.folder / "hidden")
        with monkeypatch.context() as patch:
            found = os.stat("/proc")
            patch.setattr(os, "stat", lambda path: found)
            assert "is empty, and another disk than before" in rig.arrivals.scan()
            assert rig.told() == []
            assert rig.gone == []
        rig.scanned()
        assert rig.gone == ["a.mp4"]

    def test_one_file_that_cannot_be_looked_at(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is refused until it can be; all others are found."""
        rig.drop("a.mp4", "b.mp4")
        rig.complete()
        rig.drop("c.mp4")
        with monkeypatch.context() as patch:
            broken(patch, rig.folder / "a.mp4")
            told = {arrival.clip.name: arrival.refused for arrival in rig.complete()}
            assert told == {"a.mp4": "cannot be read: Input/output error", "c.mp4": ""}
        assert [(told.clip.name, told.refused) for told in rig.complete()] == [("a.mp4", "")]
        assert rig.gone == []

    def test_nothing_is_gone_from_what_may_be_a_sub_folder(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rig = Rig(folder, recursive=True)
        (folder / "sub").mkdir()
        rig.drop("sub/a.mp4")
        rig.complete()
        with monkeypatch.context() as patch:
            broken(patch, folder / "sub")
            rig.drop("b.mp4")
            assert clips(rig.complete()) == ["b.mp4"]
        assert rig.complete() == []
        assert rig.gone == []

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
    def test_sub_folder(self) -> None:
        with somebody_elses_folder() as folder:
            rig = Rig(folder, recursive=True)
            (folder / "sub").mkdir()
            rig.drop("sub/a.mp4", "b.mp4")
            assert len(rig.complete()) == 2
            (folder / "sub").chmod(0)
            os.seteuid(65534)
            assert rig.complete() == rig.complete() == []
            assert rig.gone == []
            assert rig.warnings == [f"{folder}/sub/ cannot be read: what is in it is left out"]
            os.seteuid(0)
            (folder / "sub").chmod(0o755)
            (folder / "sub/a.mp4").unlink()
            rig.scanned()
            assert rig.gone == ["sub/a.mp4"]


def broken(patch: pytest.MonkeyPatch, path: Path) -> None:
    """A disk that answers all questions but those about one thing."""
    scandir, lstat = os.scandir, os.lstat

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    @contextmanager
    def scanning(folder: str) -> Iterator[Iterator[Any]]:
        with scandir(folder) as entries:
            bad = SimpleNamespace(name=path.name, stat=fail, is_dir=fail)
            yield (bad if entry.path == str(path) else entry for entry in entries)

    patch.setattr(os, "scandir", scanning)
    patch.setattr(os, "lstat", lambda name: fail() if str(name) == str(path) else lstat(name))


class somebody_elses_folder:
    def __enter__(self) -> Path:
        self._folder = tempfile.TemporaryDirectory()
        Path(self._folder.name).chmod(0o755)  # pytest's are closed to others
        return Path(self._folder.name)

    def __exit__(self, *error: object) -> None:
        os.seteuid(0)
        self._folder.cleanup()


class TestTake:
    def test_at_once_with_what_belongs_to_it(self, rig: Rig) -> None:
        rig.drop("a.mp4", "a.txt", "a.toml")
        arrival = rig.arrivals.take("a.mp4", 7)
        assert arrival.clip == rig.folder / "a.mp4"
        assert arrival.prompt_file == rig.folder / "a.txt"
        assert arrival.settings_file == rig.folder / "a.toml"
        assert arrival.priority == 7
        assert rig.looked(a_mp4=True, a_txt=True) == []
        assert rig.complete() == []

    def test_the_same_as_if_it_had_been_found(self, rig: Rig) -> None:
        rig.drop("a.mp4", "a.txt")
        assert rig.arrivals.take("a.mp4", None) == Rig(rig.folder).one()

    def test_a_change_after_it_is_told(self, rig: Rig) -> None:
        rig.drop("a.mp4")
        assert rig.arrivals.take("./a.mp4", None).prompt_file is None
        rig.drop("a.txt")
        assert rig.one().prompt_file

    def test_in_a_sub_folder(self, recursive: Rig) -> None:
        (recursive.folder / "sub").mkdir()
        recursive.drop("sub/a.mp4", "a.txt")
        arrival = recursive.arrivals.take("sub/a.mp4", None)
        assert arrival.clip == recursive.folder / "sub/a.mp4"
        assert arrival.prompt_file is None
        assert recursive.complete() == []

    @pytest.mark.parametrize(
        "name",
        [
            "",
            ".",
            "/",
            "/etc/passwd.mp4",
            "../a.mp4",
            "sub/../../a.mp4",
            "sub/..",
            "a\0.mp4",
            "\ud800.mp4",
            "x" * 300 + ".mp4",
            "x/" * 3000 + "a.mp4",
            "absent.mp4",
            "a.txt",
            "a.mp4/b.mp4",
            ".hidden.mp4",
            ".hidden/a.mp4",
            "out/a.mp4",
            "again/a.mp4",
            "link.mp4",
            "dir.mp4",
            "fifo.mp4",
            "linked.mp4",
        ],
    )
    def test_nothing_else(self, recursive: Rig, name: str) -> None:
        outside = recursive.folder.parent / "outside"
        outside.mkdir()
        (outside / "a.mp4").touch()
        (recursive.folder.parent / "a.mp4").touch()
        for folder in ("sub", ".hidden", "dir.mp4"):
            (recursive.folder / folder).mkdir()
        recursive.drop("a.mp4", "sub/a.mp4", ".hidden.mp4", ".hidden/a.mp4", "linked.mp4")
        (recursive.folder / "out").symlink_to(outside)
        (recursive.folder / "again").symlink_to("sub")
        (recursive.folder / "link.mp4").symlink_to(outside / "a.mp4")
        (recursive.folder / "linked.txt").symlink_to("/etc/passwd")
        os.mkfifo(recursive.folder / "fifo.mp4")
        with pytest.raises(ClipError) as caught:
            recursive.arrivals.take(name, None)
        assert len(str(caught.value).splitlines()) == 1

    def test_what_a_scan_would_not_find(self, rig: Rig) -> None:
        (rig.folder / "sub").mkdir()
        rig.drop("sub/a.mp4")
        with pytest.raises(ClipError, match=r"inbox\.recursive is off"):
            rig.arrivals.take("sub/a.mp4", None)

    def test_what_is_refused_is_told_all_the_same(self, rig: Rig) -> None:
        (rig.folder / "a.mp4").mkdir()
        with pytest.raises(ClipError, match=r"a\.mp4: is a folder, not a file"):
            rig.arrivals.take("a.mp4", None)
        assert rig.one().refused


class TestControlFiles:
    """A video or a folder beside the clip: complete with it, and part of what it looks like."""

    def kinds(self, arrival: Arrival) -> list[str]:
        return [file.kind for file in arrival.control_files]

    def pictures(self, rig: Rig, name: str = "a.depth", count: int = 2) -> Path:
        folder = rig.folder / name
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.png").write_bytes(b"x")
        return folder

    def test_told_with_the_clip(self, rig: Rig) -> None:
        self.pictures(rig)
        rig.drop("a.mp4", "a.txt", "a.hed.MOV", "b.depth.mp4", "a.canny")
        arrival = rig.one()
        assert arrival.clip == rig.folder / "a.mp4"
        assert arrival.control_files == (
            ControlFile("depth", rig.folder / "a.depth"),
            ControlFile("hed", rig.folder / "a.hed.MOV"),
        )
        assert arrival.refused == ""
        assert rig.complete() == []
        assert rig.arrivals.due == float("inf")
        job = Job(
            arrival.clip,
            rig.folder / "a.txt",
            "a",
            control_files=arrival.control_files,
        )
        assert seen_now(rig.folder, *job.files) == arrival.seen
        files = JobFiles(job, rig.folder)
        assert files.seen == arrival.seen
        files.close()

    def test_late(self, rig: Rig) -> None:
        rig.drop("a.mp4", "a.txt")
        first = rig.one()
        rig.drop("a.depth.mp4")
        waiting, second = rig.complete()
        assert (waiting.prompt_file, self.kinds(waiting)) == (None, [])  # nobody begins with half
        assert self.kinds(second) == ["depth"]
        assert len({first.seen, waiting.seen, second.seen}) == 3

    def test_a_folder_that_fills(self, rig: Rig) -> None:
        rig.drop("a.mp4", "a.txt")
        rig.complete()
        folder = self.pictures(rig, count=1)
        (waiting,) = rig.scanned()
        assert waiting.prompt_file is None
        for number in range(1, 4):
            (folder / f"{number}.png").write_bytes(b"x")
            assert rig.looked(QUIET) == []
        with (folder / "4.png").open("wb"):
            assert rig.looked(QUIET) == []
            assert rig.looked(QUIET) == []
            assert rig.looked(3600) == []
        (arrival,) = rig.looked(1.0)
        assert self.kinds(arrival) == ["depth"]

    def test_changed(self, rig: Rig) -> None:
        folder = self.pictures(rig)
        rig.drop("a.mp4", "a.txt", "a.hed.mp4")
        words = [rig.one().seen]
        for file in (rig.folder / "a.hed.mp4", folder / "1.png"):
            file.write_bytes(b"changed")
            waiting, arrival = rig.complete()
            assert waiting.prompt_file is None
            words.append(arrival.seen)
        assert len(set(words)) == 3

    def test_deleted(self, rig: Rig) -> None:
        folder = self.pictures(rig)
        rig.drop("a.mp4", "a.txt", "a.hed.mp4")
        rig.one()
        (rig.folder / "a.hed.mp4").unlink()
        assert self.kinds(rig.one()) == ["depth"]
        shutil.rmtree(folder)
        assert self.kinds(rig.one()) == []
        assert rig.gone == []

    @pytest.mark.parametrize("beneath", ["", "sub/"])
    def test_events_within_a_folder(self, recursive: Rig, beneath: str) -> None:
        rig = recursive
        (rig.folder / beneath).mkdir(exist_ok=True)
        folder = self.pictures(rig, f"{beneath}a.depth")
        rig.drop(f"{beneath}a.mp4", f"{beneath}a.txt", f"{beneath}a.depth/b.mp4")
        rig.one()
        (folder / "0.png").write_bytes(b"changed")
        rig.arrivals.look({f"{beneath}a.depth/0.png": False})
        (waiting,) = rig.told()
        assert waiting.prompt_file is None
        (arrival,) = rig.looked(QUIET)
        assert (arrival.clip.name, self.kinds(arrival)) == ("a.mp4", ["depth"])

    def test_refused(self, rig: Rig, tmp_path: Path) -> None:
        (tmp_path / "secret.mp4").touch()
        (tmp_path / "secret").mkdir()
        for stem in "abcde":
            rig.drop(f"{stem}.mp4", f"{stem}.txt")
        (rig.folder / "a.depth.mp4").symlink_to("../secret.mp4")
        (rig.folder / "b.depth").symlink_to("../secret")
        (self.pictures(rig, "c.depth") / "2.png").symlink_to("0.png")
        os.mkfifo(rig.folder / "d.depth.mp4")
        os.mkfifo(self.pictures(rig, "e.control") / "3.png")
        assert [arrival.refused for arrival in rig.complete()] == [
            "a.depth.mp4 is a link that leads out of the inbox",
            "b.depth is a link that leads out of the inbox",
            "c.depth has 2.png, a link, in it",
            "d.depth.mp4 is a FIFO, not a file",
            "e.control has 3.png, a FIFO, in it",
        ]

    def test_permissions_given_later(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pictures(rig)
        rig.drop("a.mp4", "a.txt")

        def denied(folder: str) -> bool:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        with monkeypatch.context() as patch:
            patch.setattr(inbox_files, "any_open_for_writing", denied)
            assert rig.one().refused == "a.depth cannot be read: Permission denied"
            assert rig.complete() == []
        assert rig.complete()[-1].refused == ""

    def test_by_command(self, rig: Rig) -> None:
        self.pictures(rig)
        rig.drop("a.mp4", "a.txt", "a.hed.mp4", "a.canny")
        assert self.kinds(rig.arrivals.take("a.mp4", None)) == ["depth", "hed"]
        with pytest.raises(ClipError, match=r"a\.hed\.mp4 has by its name the control maps of"):
            rig.arrivals.take("a.hed.mp4", None)

    def test_at_a_restart_they_are_complete(self, rig: Rig) -> None:
        self.pictures(rig)
        rig.drop("a.mp4", "a.txt")
        arrival = rig.one()
        again = Rig(rig.folder, {arrival.clip: arrival.seen})
        assert again.scanned() == []
        assert again.arrivals.due == float("inf")
