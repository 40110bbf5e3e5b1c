"""What one clip may have otherwise, and what it is told about the rest."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.config import Layer, keys, merge
from daemon.job_settings import ALLOWED, MAX_BYTES, MAX_MESSAGE, job_priority, job_settings
from daemon.jobs import Outcome
from daemon.settings import Settings
from fresco_core.errors import ClipError
from tests.daemon.rig import Rig

OURS = merge(
    Layer("config", {"translation.seed": 7, "key_frames.resolution": 128, "models.base": "a/b"})
)


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "a.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(ClipError) as error:
        job_settings(OURS, written(folder, text))
    message = str(error.value)
    assert message.isprintable()
    assert message.startswith("a.toml: ") or "(a.toml)" in message
    assert len(message) <= MAX_MESSAGE + 1
    return message


def test_a_jobs_own_go_before_the_programs(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "priority = 5\n[translation]\nsteps = 9\n[output]\ncrf = 30\n[control]\nscale = 1\n"
        "[constraints]\noptimized_levels = [1, 2]\n[clips]\non_truncated = 'fail'\n",
    )
    expected = merge(
        Layer(
            "expected",
            {
                "translation.seed": 7,
                "key_frames.resolution": 128,
                "models.base": "a/b",
                "translation.steps": 9,
                "output.crf": 30,
                "control.scale": 1.0,
                "constraints.optimized_levels": [1, 2],
                "clips.on_truncated": "fail",
            },
        )
    )
    assert job_settings(OURS, file) == expected
    assert job_settings(OURS, file).fingerprint() != OURS.fingerprint()


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "[output]\n", "priority = 3\n", b"\xef\xbb\xbf"]
)
def test_nothing_changes_nothing(tmp_path: Path, text: str | bytes) -> None:
    assert job_settings(OURS, written(tmp_path, text)) == OURS
    assert job_settings(OURS, None) is OURS


def test_every_key_is_allowed_or_refused_by_name(tmp_path: Path) -> None:
    for key, field in keys():
        section, _, name = key.rpartition(".")
        value = field.default
        shown = str(value).lower() if isinstance(value, bool) else repr(value)
        if isinstance(value, tuple):
            shown = str(list(value))
        text = f"[{section}]\n{name} = {shown}\n" if section else f"{name} = {shown}\n"
        if key in ALLOWED:
            changed = job_settings(OURS, written(tmp_path, text))
            assert (changed == OURS) == (key not in ("translation.seed", "key_frames.resolution"))
        else:
            expected = f"a.toml: {key} cannot be set for one clip: set it in config.toml"
            assert refusal(tmp_path, text) == expected


def test_none_names_a_place_or_another_process() -> None:
    """What is loaded once, decides where something runs or lies, or is refused for safety."""
    assert ALLOWED.isdisjoint({"output.folder", "limits.max_pixels", "clips.decoder"})
    sections = {key.rpartition(".")[0] for key in ALLOWED}
    assert sections.isdisjoint({"", "models", "flow", "inbox", "service", "cpu", "prefetch"})
    assert {"control.scale", "control.canny_low", "freeu.b1", "output.frames"} <= ALLOWED
    where = ("engine", "program", "processes", "device", "device_memory")
    assert ALLOWED.isdisjoint(f"propagation.{name}" for name in where)
    assert ALLOWED.isdisjoint({"control.type", "control.source", "control.enabled"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed = 3", "a.toml: seed: no such key; did you mean translation.seed?"),
        ("[key_frame]\nresolution = 64", "did you mean key_frames.resolution?"),
        ("priorty = 3", "did you mean priority?"),
        ("presets = 'stylize'", "did you mean preset?"),
        ("[preset]\nname = 'stylize'", "preset.name: no such key; did you mean"),
        ("[control]\nscale = [0.5, 0.5]", "control.scale = [0.5, 0.5] (a.toml) does not go with"),
        ("translation = 3", "write [translation] and its keys below"),
        ("[translation]\nsteps = 0", "translation.steps = 0 is not allowed: give a whole number"),
        ("[translation]\nsteps = '9'", 'translation.steps = "9" is not allowed'),
        ("[translation.steps]\nx = 1", "translation.steps = "),
        ("[translation]\nwarmup_steps = 20", "(a.toml) does not go with translation.steps = 20"),
        ("priority = 1001", "priority = 1001 is not allowed: give a whole number, -1000 to 1000"),
        ("priority = 1.0", "priority = 1.0 is not allowed"),
        ("priority = true", "priority = true is not allowed"),
        ("priority = 'high'", 'priority = "high" is not allowed'),
        ("priority = 1979-05-27", "is not allowed"),
        ("seed", "not a TOML file: "),
        ("a = " + "[" * 20_000, "not a TOML file: "),
        (f"priority = 0x{'f' * 5_000}", "a number that is too long"),
        (f"[translation]\nseed = 0x{'f' * 5_000}", "a number that is too long"),
        ('"\\u0007\\n" = 1', "no such key"),
        ("x" * 5000 + " = 1", "no such key"),
        (f"[prompts]\nadded = '{'x' * 5_000}'\nnegative = 1", "prompts.negative = 1"),
        (f"[propagation]\nblend = '{'x' * 5_000}'", "propagation.blend = "),
        (b"\xff\xfe", "is not UTF-8 text"),
        ("priority = 1\0", "not a TOML file"),
        (b"#" * (MAX_BYTES + 1), "is larger than 64 KiB"),
    ],
)
def test_is_refused_with_the_reason(tmp_path: Path, text: str | bytes, expected: str) -> None:
    message = refusal(tmp_path, text)
    assert expected in message or len(message) == MAX_MESSAGE + 1


def test_the_largest_file_is_read(tmp_path: Path) -> None:
    assert job_settings(OURS, written(tmp_path, b"#" * MAX_BYTES)) == OURS


def test_what_is_no_file(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe.toml", tmp_path / "link.toml"
    os.mkfifo(pipe)
    link.symlink_to(written(tmp_path, "priority = 3"))
    for file, why in (
        (pipe, "it is no regular file"),
        (tmp_path, "it is no regular file"),
        (link, "it is a symbolic link"),
        (tmp_path / "absent.toml", "No such file"),
    ):
        with pytest.raises(ClipError, match=why):
            job_settings(Settings(), file)
        assert job_priority(file) == 0


@pytest.mark.parametrize(
    ("text", "priority"),
    [
        ("priority = -1000", -1000),
        ("priority = 1000\n[models]\nbase = 'x'", 1000),  # told when the job is begun
        ("", 0),
        ("priority = 1001", 0),
        ("priority = true", 0),
        ("priority = [1]", 0),
        ("priority = ", 0),
        (b"\xff", 0),
    ],
)
def test_priority(tmp_path: Path, text: str | bytes, priority: int) -> None:
    assert job_priority(written(tmp_path, text)) == priority
    assert job_priority(None) == 0


def test_names_are_shown_printable(tmp_path: Path) -> None:
    file = tmp_path / "a\n\udcff.toml"
    file.write_text("x = 1")
    with pytest.raises(ClipError, match=r"^a\\n\\udcff\.toml: x: no such key"):
        job_settings(OURS, file)


def test_clips_side_by_side_with_settings_of_their_own(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    plain, own, wrong = (rig.job(name, frames=9) for name in "abc")
    file = tmp_path / "b.toml"
    file.write_text(
        "[key_frames]\nmin_interval = 3\nmax_interval = 3\nresolution = 128\n"
        "[translation]\nsteps = 8\n[output]\ncomparison = false\n"
    )
    other = tmp_path / "c.toml"
    other.write_text("[models]\nbase = '/etc/passwd'\n")
    results = rig.run(
        plain,
        replace(own, settings_file=file),
        replace(wrong, settings_file=other),
        devices=("cpu", "cpu"),
    )
    assert [result.outcome for result in results] == [Outcome.DONE, Outcome.DONE, Outcome.FAILED]
    assert results[2].reason.startswith("c.toml: models.base cannot be set for one clip")
    assert rig.manifest("a")["key_frames"] == [0, 4, 8]
    told = rig.manifest("b")
    assert told["key_frames"] == [0, 3, 6, 8]
    assert told["sizes"]["working"] == [192, 128]
    assert told["settings"]["translation"]["steps"] == 8
    assert (rig.output / "a/comparison.mp4").exists()
    assert not (rig.output / "b/comparison.mp4").exists()
    # Done again only where its own settings are others.
    again = rig.run(plain, replace(own, settings_file=file))
    assert {result.outcome for result in again} == {Outcome.ALREADY_DONE}
    file.unlink()
    (result,) = rig.run(own)
    assert result.outcome is Outcome.DONE
    assert rig.manifest("b")["key_frames"] == [0, 4, 8]
