import json
import os
import unicodedata
from pathlib import Path

import pytest

from daemon.folder_scan import scan
from io_pipeline.control_source import ControlFile


def drop(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"x")


def names(folder: Path, prompts: Path | None = None) -> list[str]:
    return [job.name for job in scan(folder, prompts or folder, folder / "output").jobs]


def test_clip_and_prompt_are_paired_by_stem(tmp_path: Path) -> None:
    drop(tmp_path, "a.mp4", "a.txt", "b.mkv", "b.txt", "notes.txt", "c.png", "c.txt")
    inbox = scan(tmp_path, tmp_path, tmp_path / "output")
    assert [(job.clip.name, job.prompt_file.name, job.name) for job in inbox.jobs] == [
        ("a.mp4", "a.txt", "a"),
        ("b.mkv", "b.txt", "b"),
    ]
    assert inbox.without_prompt == inbox.not_files == ()


def test_prompts_from_another_folder(tmp_path: Path) -> None:
    clips, prompts = tmp_path / "clips", tmp_path / "prompts"
    clips.mkdir()
    prompts.mkdir()
    drop(clips, "a.mp4", "a.txt")
    drop(prompts, "a.txt")
    (job,) = scan(clips, prompts, tmp_path).jobs
    assert job.prompt_file == prompts / "a.txt"


def test_suffixes_in_any_case(tmp_path: Path) -> None:
    drop(tmp_path, "a.MP4", "b.Mov", "c.AVI", "d.mkv", *(f"{stem}.TXT" for stem in "abcd"))
    assert names(tmp_path) == ["a", "b", "c", "d"]


def test_natural_order(tmp_path: Path) -> None:
    stems = ["clip10", "clip2", "Clip1", "7", "x1y10", "x1y9"]
    drop(tmp_path, *(f"{stem}{suffix}" for stem in stems for suffix in (".mp4", ".txt")))
    assert names(tmp_path) == ["7", "Clip1", "clip2", "clip10", "x1y9", "x1y10"]


def test_clip_without_prompt(tmp_path: Path) -> None:
    drop(tmp_path, "a.mp4", "b.mp4", "b.txt")
    inbox = scan(tmp_path, tmp_path, tmp_path / "output")
    assert [path.name for path in inbox.without_prompt] == ["a.mp4"]
    assert [job.name for job in inbox.jobs] == ["b"]


def test_two_clips_with_one_stem(tmp_path: Path) -> None:
    drop(tmp_path, "a.avi", "a.mov", "a.mp4", "a.txt", "a.mp4.mkv", "a.mp4.txt")
    found = names(tmp_path)
    assert found == ["a", "a.mov", "a.mp4", "a.mp4.mkv"]


def finish(folder: Path, manifest: object) -> None:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("holder", "found"),
    [
        ("a.avi", ["a", "a.mov", "a.mp4"]),
        ("a.mov", ["a.avi", "a", "a.mp4"]),
        ("a.mp4", ["a.avi", "a.mov", "a"]),
        ("a.mkv", ["a", "a.mov", "a.mp4"]),  # no longer there
    ],
)
def test_a_result_folder_stays_with_its_clip(tmp_path: Path, holder: str, found: list[str]) -> None:
    drop(tmp_path, "a.avi", "a.mov", "a.mp4", "a.txt")
    finish(tmp_path / "output/a", {"clip": {"file": holder}})
    assert names(tmp_path) == found


@pytest.mark.parametrize("manifest", [[], {}, {"clip": "a.mp4"}, {"clip": {"file": ["a.mp4"]}}])
def test_a_folder_that_is_no_result_is_nobodys(tmp_path: Path, manifest: object) -> None:
    drop(tmp_path, "a.avi", "a.mp4", "a.txt")
    finish(tmp_path / "output/a", manifest)
    assert names(tmp_path) == ["a", "a.mp4"]


def test_what_is_no_file_is_named_and_left_out(tmp_path: Path) -> None:
    drop(tmp_path, "good.mp4", "good.txt", "dir.txt", "fifo.txt", "broken.txt", "target")
    (tmp_path / "dir.mp4").mkdir()
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "broken.mp4").symlink_to(tmp_path / "absent")
    inbox = scan(tmp_path, tmp_path, tmp_path / "output")
    assert [job.name for job in inbox.jobs] == ["good"]
    assert [path.name for path in inbox.not_files] == ["broken.mp4", "dir.mp4", "fifo.mp4"]


def test_prompt_that_is_no_file_counts_as_absent(tmp_path: Path) -> None:
    drop(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "a.txt").mkdir()
    os.mkfifo(tmp_path / "b.txt")
    assert [path.name for path in scan(tmp_path, tmp_path, tmp_path / "output").without_prompt] == [
        "a.mp4",
        "b.mp4",
    ]


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    drop(tmp_path, "real.mp4")
    drop(tmp_path / "in", "link.txt")
    (tmp_path / "in/link.mp4").symlink_to(tmp_path / "real.mp4")
    assert names(tmp_path / "in") == ["link"]


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    drop(tmp_path, ".a.mp4", ".a.txt", ".mp4", "..mp4", "...txt")
    inbox = scan(tmp_path, tmp_path, tmp_path / "output")
    assert (inbox.jobs, inbox.without_prompt, inbox.not_files) == ((), (), ())


@pytest.mark.parametrize(
    "stem",
    [
        "with blank",
        " ",
        "quote'\"s",
        "Straße 雪 🚗",
        "two\nlines",
        "tab\tand \x1b[31mescape",
        "bytes\udcff\udc80",
        "$(touch x); rm -rf *",
        "-h",
        "--output",
        "[bold]",
        "%04d",
        "x" * 251,
    ],
)
def test_odd_names(tmp_path: Path, stem: str) -> None:
    drop(tmp_path, f"{stem}.mp4", f"{stem}.txt")
    (job,) = scan(tmp_path, tmp_path, tmp_path / "output").jobs
    assert job.name == stem
    assert job.clip.read_bytes() == job.prompt_file.read_bytes() == b"x"


def test_accents_are_paired_however_they_are_stored(tmp_path: Path) -> None:
    one, two = (unicodedata.normalize(form, "Säntis") for form in ("NFC", "NFD"))
    assert one != two
    drop(tmp_path, f"{one}.mp4", f"{two}.txt")
    assert names(tmp_path) == [one]


def test_settings_beside_the_clip_go_with_it(tmp_path: Path) -> None:
    clips, prompts = tmp_path / "clips", tmp_path / "prompts"
    clips.mkdir()
    prompts.mkdir()
    drop(clips, "a.mp4", "a.toml", "b.mp4")
    drop(prompts, "a.txt", "b.txt", "b.toml")
    first, second = scan(clips, prompts, tmp_path).jobs
    assert (first.settings_file, second.settings_file) == (clips / "a.toml", None)


class TestControlFiles:
    def test_they_go_with_their_clip(self, tmp_path: Path) -> None:
        drop(tmp_path, "a.mp4", "a.txt", "b.mp4", "b.txt", "a.Hed.MOV", "a.10.depth.mp4", "a.canny")
        for name in ("a.depth", "A.control", "c.control", ".hidden.depth"):
            (tmp_path / name).mkdir()
        found = scan(tmp_path, tmp_path, tmp_path / "output")
        assert {job.name: job.control_files for job in found.jobs} == {
            "a": (
                ControlFile("depth", tmp_path / "a.depth"),
                ControlFile("hed", tmp_path / "a.Hed.MOV"),
            ),
            "b": (),
        }
        assert [path.name for path in found.without_clip] == [
            "a.10.depth.mp4",
            "A.control",
            "c.control",
        ]
        assert found.without_prompt == found.not_files == ()

    def test_links_are_followed(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "maps").mkdir()
        drop(tmp_path, "maps.mp4")
        drop(tmp_path / "in", "a.mp4", "a.txt")
        (tmp_path / "in/a.depth").symlink_to(tmp_path / "maps")
        (tmp_path / "in/a.hed.mp4").symlink_to(tmp_path / "maps.mp4")
        (job,) = scan(tmp_path / "in", tmp_path / "in", tmp_path / "output").jobs
        assert [file.kind for file in job.control_files] == ["depth", "hed"]


def test_what_may_have_been_meant_as_control_maps(tmp_path: Path) -> None:
    drop(tmp_path, "a.mp4", "a.txt", "a.contrl.mp4", "a.hd.mp4", "a.hd.txt", "b.dept.mp4")
    for name in ("a.cany", "a.depth", "b.cany", ".cany"):
        (tmp_path / name).mkdir()
    found = scan(tmp_path, tmp_path, tmp_path / "output")
    assert found.misspelt == (
        (tmp_path / "a.cany", "a.canny"),
        (tmp_path / "a.contrl.mp4", "a.control.mp4"),
    )
    assert scan(tmp_path, tmp_path, tmp_path / "output", only="a.mp4").misspelt == found.misspelt
    assert scan(tmp_path, tmp_path, tmp_path / "output", only="c.mp4").misspelt == ()


def test_one_clip_alone(tmp_path: Path) -> None:
    drop(tmp_path, "a.mp4", "a.txt", "b.mp4", "b.txt", "b.toml", "b.depth.mp4", "prompt")
    found = scan(tmp_path, tmp_path, tmp_path / "output", only="b.mp4")
    (job,) = found.jobs
    assert (job.name, job.settings_file) == ("b", tmp_path / "b.toml")
    assert job.prompt_file == tmp_path / "b.txt"
    assert [file.kind for file in job.control_files] == ["depth"]
    assert scan(tmp_path, tmp_path, tmp_path / "output", only="c.mp4").jobs == ()


@pytest.mark.parametrize("holder", ["a.avi", "a.mp4", None])
def test_one_clip_alone_has_the_name_that_it_has_among_all(
    tmp_path: Path, holder: str | None
) -> None:
    """Its result would take the place of another one's, or not be found again."""
    drop(tmp_path, "a.avi", "a.mp4", "a.txt")
    if holder:
        finish(tmp_path / "output/a", {"clip": {"file": holder}})
    for name, clip in zip(names(tmp_path), ["a.avi", "a.mp4"], strict=True):
        (job,) = scan(tmp_path, tmp_path, tmp_path / "output", only=clip).jobs
        assert (job.clip.name, job.name) == (clip, name)


def test_a_prompt_for_clips_without_one(tmp_path: Path) -> None:
    drop(tmp_path, "a.mp4", "a.txt", "b.mp4", "prompt")
    found = scan(tmp_path, tmp_path, tmp_path / "output", prompt=tmp_path / "prompt")
    assert [job.prompt_file.name for job in found.jobs] == ["a.txt", "prompt"]
    assert found.without_prompt == ()


def test_the_exact_stem_goes_before_an_equal_one(tmp_path: Path) -> None:
    one, two = (unicodedata.normalize(form, "ä") for form in ("NFC", "NFD"))
    drop(tmp_path, f"{one}.mp4", f"{two}.mp4", f"{one}.txt", f"{two}.txt")
    jobs = scan(tmp_path, tmp_path, tmp_path / "output").jobs
    assert len(jobs) == 2
    assert all(job.clip.stem == job.prompt_file.stem for job in jobs)


def test_absent_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        scan(tmp_path / "absent", tmp_path, tmp_path)
