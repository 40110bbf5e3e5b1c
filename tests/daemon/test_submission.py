import errno
import os
import stat
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from daemon.job_settings import job_settings
from daemon.settings import Settings
from daemon.submission import Submission, SubmitError, below, open_clip, read_text
from fresco_core.errors import FrescodError


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    clip = tmp_path / "a.mp4"
    clip.write_bytes(b"frames" * 1000)
    return clip


def submission(clip: Path, **changes: Any) -> Submission:
    return Submission(
        **{"clip": clip, "name": clip.name, "prompt": b"a car", "values": {}} | changes
    )


class TestPut:
    def test_clip_prompt_and_settings(self, inbox: Path, clip: Path) -> None:
        values = {"translation.seed": "5"}
        assert submission(clip, values=values, priority=3).put(inbox) == "a.mp4"
        assert sorted(os.listdir(inbox)) == ["a.mp4", "a.toml", "a.txt"]
        assert (inbox / "a.mp4").read_bytes() == clip.read_bytes()
        assert (inbox / "a.txt").read_bytes() == b"a car"
        settings = job_settings(Settings(), inbox / "a.toml")
        assert settings.translation.seed == 5
        for file in inbox.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o644

    def test_without_settings_there_is_no_sidecar(self, inbox: Path, clip: Path) -> None:
        submission(clip).put(inbox)
        assert sorted(os.listdir(inbox)) == ["a.mp4", "a.txt"]

    def test_under_another_name(self, inbox: Path, clip: Path) -> None:
        assert submission(clip, name="b.MP4").put(inbox) == "b.MP4"
        assert sorted(os.listdir(inbox)) == ["b.MP4", "b.txt"]

    @pytest.mark.parametrize("taken", ["a.mp4", "a.txt", "a.toml"])
    @pytest.mark.parametrize("late", [False, True])
    def test_nothing_is_replaced_and_nothing_left(
        self, inbox: Path, clip: Path, taken: str, late: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (inbox / taken).write_text("precious")
        if late:  # it came while the clip was copied
            monkeypatch.setattr("os.path.lexists", lambda path: False)
        with pytest.raises(SubmitError, match=rf"{taken}: is there already: .*--name"):
            submission(clip, values={"translation.seed": "5"}).put(inbox)
        assert os.listdir(inbox) == [taken]
        assert (inbox / taken).read_text() == "precious"

    def test_a_link_to_nowhere_is_something_too(self, inbox: Path, clip: Path) -> None:
        (inbox / "a.mp4").symlink_to("nowhere")
        with pytest.raises(SubmitError, match="already"):
            submission(clip).put(inbox)
        assert os.listdir(inbox) == ["a.mp4"]

    def test_the_clip_is_last_and_whole_when_it_appears(
        self, inbox: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []
        link = os.link

        def see(source: str, target: Path) -> None:
            seen.append([name for name in os.listdir(inbox) if not name.startswith(".")])
            link(source, target)
            assert target.stat().st_size

        monkeypatch.setattr("os.link", see)
        submission(clip, priority=1).put(inbox)
        assert [sorted(names) for names in seen] == [[], ["a.toml"], ["a.toml", "a.txt"]]

    def test_a_file_system_without_links(
        self, inbox: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(source: str, target: Path) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr("os.link", refuse)
        submission(clip).put(inbox)
        assert sorted(os.listdir(inbox)) == ["a.mp4", "a.txt"]
        assert (inbox / "a.mp4").read_bytes() == clip.read_bytes()
        monkeypatch.setattr("os.path.lexists", lambda path: False)
        with pytest.raises(SubmitError, match="already"):
            submission(clip).put(inbox)

    @pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space"), KeyboardInterrupt()])
    def test_interrupted_it_leaves_nothing(
        self, inbox: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        def fail(*arguments: object) -> None:
            raise error

        monkeypatch.setattr("shutil.copyfileobj", fail)
        with pytest.raises((SubmitError, KeyboardInterrupt)):
            submission(clip).put(inbox)
        assert os.listdir(inbox) == []

    def test_what_a_killed_one_left_goes_after_a_day(
        self, inbox: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (inbox / "target").touch()
        for name, days in ((".submit-old", 2), (".submit-new", 0), (".other", 2), ("target", 2)):
            (inbox / name).touch()
            os.utime(inbox / name, (time.time() - days * 86400,) * 2)
        (inbox / ".submit-folder").mkdir()
        os.utime(inbox / ".submit-folder", (0, 0))
        submission(clip).put(inbox)
        left = [".other", ".submit-folder", ".submit-new", "a.mp4", "a.txt", "target"]
        assert sorted(os.listdir(inbox)) == left
        os.utime(inbox / ".submit-new", (0, 0))
        monkeypatch.setattr("os.geteuid", lambda: 12345)  # another user's is for that one
        submission(clip, name="b.mp4").put(inbox)
        assert (inbox / ".submit-new").exists()

    def test_an_inbox_that_cannot_be_written(self, tmp_path: Path, clip: Path) -> None:
        with pytest.raises(SubmitError, match="cannot be written"):
            submission(clip).put(tmp_path / "absent")


class TestInPlace:
    def test_a_clip_in_the_inbox_stays_where_it_is(self, inbox: Path) -> None:
        (inbox / "a.mp4").write_bytes(b"frames")
        before = (inbox / "a.mp4").stat()
        assert submission(inbox / "a.mp4").put(inbox) == "a.mp4"
        assert (inbox / "a.mp4").stat() == before
        assert (inbox / "a.txt").read_text() == "a car"
        assert submission(inbox / "a.mp4", prompt=None).put(inbox) == "a.mp4"

    def test_its_prompt_is_not_replaced(self, inbox: Path) -> None:
        (inbox / "a.mp4").touch()
        (inbox / "a.txt").write_text("mine")
        with pytest.raises(SubmitError, match=r"a\.txt: is there already: change that one"):
            submission(inbox / "a.mp4").put(inbox)

    def test_below(self, inbox: Path, clip: Path) -> None:
        assert below(inbox, inbox / "a.mp4") == "a.mp4"
        assert below(inbox, inbox / "sub/a.mp4") == "sub/a.mp4"
        assert below(inbox, inbox / "../inbox/a.mp4") == "a.mp4"
        assert below(inbox, inbox / "sub/../../a.mp4") is None
        assert below(inbox, clip) is None
        # A link out of the inbox lies in it: that it is refused is for the daemon to say.
        (inbox / "l.mp4").symlink_to(clip)
        assert below(inbox, inbox / "l.mp4") == "l.mp4"


class TestCheck:
    def refused(self, clip: Path, **changes: Any) -> str:
        with pytest.raises(FrescodError) as refused:
            submission(clip, **changes).check(Settings())
        assert "\n" not in str(refused.value)
        return str(refused.value)

    def test_good(self, clip: Path) -> None:
        submission(clip, values={"control.scale": ".5"}, priority=-5).check(Settings())
        submission(clip, prompt="eine Straße,\n\tRegen\r\nNegative prompt: x".encode()).check(
            Settings()
        )

    @pytest.mark.parametrize("name", ["a.txt", "a", "mp4", "a.mp4.part"])
    def test_no_clip(self, clip: Path, name: str) -> None:
        assert "is no clip: its name has to end in one of .avi" in self.refused(clip, name=name)

    @pytest.mark.parametrize("name", ["a.depth.mp4", "a.Control.MOV"])
    def test_control_maps(self, clip: Path, name: str) -> None:
        assert "has by its name the control maps of a clip" in self.refused(clip, name=name)

    @pytest.mark.parametrize("name", ["../a.mp4", "/tmp/a.mp4", "x/a.mp4"])
    def test_a_path(self, clip: Path, name: str) -> None:
        assert "is a path" in self.refused(clip, name=name)

    def test_hidden(self, clip: Path) -> None:
        assert "hidden" in self.refused(clip, name=".a.mp4")

    @pytest.mark.parametrize(
        ("pattern", "name"), [("*.[mM]p4", "a.mp4"), ("b.txt", "b.mp4"), ("b.toml", "b.mov")]
    )
    def test_left_alone_by_the_inbox(self, clip: Path, pattern: str, name: str) -> None:
        settings = Settings.model_validate({"inbox": {"ignore": [pattern]}})
        with pytest.raises(SubmitError, match=r"left alone by inbox\.ignore: give another name"):
            submission(clip, name=name).check(settings)
        submission(clip, name="c.mkv").check(settings)

    @pytest.mark.parametrize("inside", [".x/a.mp4", "y/z.part/a.mp4"])
    def test_in_a_folder_that_is_left_alone(self, clip: Path, inside: str) -> None:
        with pytest.raises(SubmitError, match=r"a\.mp4: lies where the inbox looks at nothing"):
            submission(clip).check(Settings(), inside)
        submission(clip).check(Settings(), "x/y/a.mp4")

    @pytest.mark.parametrize("name", ["a\n.mp4", "a\x1b[2J.mp4", "a\x9b.mp4"])
    def test_control_characters_in_the_name(self, clip: Path, name: str) -> None:
        assert "contains the control character" in self.refused(clip, name=name)

    def test_control_characters_in_the_prompt(self, clip: Path) -> None:
        assert "a.txt: contains the control character \\x1b" in self.refused(
            clip, prompt=b"a \x1b[2J car"
        )

    @pytest.mark.parametrize(
        ("prompt", "reason"),
        [
            (b"", "a.txt: prompt is empty"),
            (b" \n", "a.txt: prompt is empty"),
            (b"Negative prompt: x", "a.txt: prompt is empty"),
            (b"\xff", "a.txt: prompt is not UTF-8"),
            (b"x" * 1_000_001, "a.txt: prompt is larger than 1 MB"),
        ],
    )
    def test_prompt(self, clip: Path, prompt: bytes, reason: str) -> None:
        assert self.refused(clip, prompt=prompt).startswith(reason)

    @pytest.mark.parametrize(
        ("key", "value", "reason"),
        [
            ("translation.sed", "5", "did you mean translation.seed?"),
            ("translation.seed", "x", "--set: translation.seed = "),
            ("models.base", "x/y", "--set: models.base cannot be set for one clip"),
            ("key_frames.min_interval", "9", "key_frames.min_interval = 9 (--set) does not go"),
            ("translation.warmup_steps", "99", "does not go with"),
        ],
    )
    def test_settings(self, clip: Path, key: str, value: str, reason: str) -> None:
        assert reason in self.refused(clip, values={key: value})

    def test_a_setting_goes_with_those_of_the_daemon(self, clip: Path) -> None:
        long = Settings.model_validate({"translation": {"steps": 200}})
        submission(clip, values={"translation.warmup_steps": "99"}).check(long)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("translation.seed", "5", 5),
        ("control.scale", "1", 1.0),
        ("output.comparison", "no", False),
        ("prompts.added", 'a "b" \\ é 😀', 'a "b" \\ é 😀'),
        ("prompts.negative", "5", "5"),
        ("propagation.timing", "published", "published"),
        ("constraints.optimized_levels", [0, 1], [0, 1]),
        ("control.scale", "0.5,1", [0.5, 1.0]),
    ],
)
def test_values_get_the_types_of_their_keys(clip: Path, key: str, text: Any, value: Any) -> None:
    sidecar = submission(clip, values={key: text}).sidecar()
    assert sidecar is not None
    section, name = key.split(".")
    read = tomllib.loads(sidecar.decode())[section][name]
    assert (read, type(read)) == (value, type(value))


def test_presets_are_written_for_the_clip(inbox: Path, clip: Path) -> None:
    submission(clip, presets=("stylize", "preview"), values={"control.scale": "0.5"}).put(inbox)
    settings = job_settings(Settings(), inbox / "a.toml")
    assert settings.output.frames == "preview"
    assert settings.translation.strength == 0.85
    assert settings.control.scale == (0.5,)


class TestFiles:
    def test_a_fifo_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.mp4")
        with pytest.raises(SubmitError, match=r"a\.mp4: cannot be read"):
            open_clip(tmp_path / "a.mp4")

    def test_a_text_without_end_is_read_only_so_far(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes(b"x" * 3_000_000)
        assert len(read_text(tmp_path / "a.txt")) == 1_000_001
