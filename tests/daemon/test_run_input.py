from pathlib import Path

import click
import pytest

from daemon.run_input import RunInput, run_input
from fresco_core.errors import ConfigError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name in ("a.mp4", "a.depth.mp4", ".b.mp4", "c.webm"):
        Path("data", name).touch()


def job(text: str) -> Path:
    Path("job.yaml").write_text(text)
    return Path("job.yaml")


class TestFolder:
    def test_defaults(self) -> None:
        folder = Path("data")
        assert run_input(folder, None, None, None, None) == RunInput(folder, folder, Path("output"))

    def test_as_given(self) -> None:
        found = run_input(Path("data"), Path("prompts"), Path("out"), "a car", None)
        assert found == RunInput(Path("data"), Path("prompts"), Path("out"), None, "a car")

    def test_what_a_job_file_says_of_its_clip_does_not_count(self) -> None:
        base = job("file_path: data/a.mp4\nsave_path: results\nprompt: a car")
        found = run_input(Path("data"), None, None, None, base)
        assert found == RunInput(Path("data"), Path("data"), Path("output"))


class TestOneClip:
    def test_as_the_job_file_says(self) -> None:
        base = job("file_path: ./data/a.mp4\nsave_path: ./results/\nprompt: a car")
        assert run_input(None, None, None, None, base) == RunInput(
            Path("data"), Path("data"), Path("results"), "a.mp4", "a car"
        )

    def test_options_go_first(self) -> None:
        base = job("file_path: data/a.mp4\nsave_path: results\nprompt: a car")
        assert run_input(None, Path("prompts"), Path("out"), "snow", base) == RunInput(
            Path("data"), Path("prompts"), Path("out"), "a.mp4", "snow"
        )

    def test_of_the_working_folder(self) -> None:
        Path("a.mp4").touch()
        found = run_input(None, None, None, None, job("file_path: a.mp4"))
        assert found == RunInput(Path("."), Path("."), Path("output"), "a.mp4")

    @pytest.mark.parametrize(
        ("path", "why"),
        [
            ("data/absent.mp4", "there is no such file"),
            ("data", "there is no such file"),
            ("data/c.webm", r"name ends in one of \.avi \.mkv"),
            ("data/a.depth.mp4", "control maps of a clip"),
            ("data/.b.mp4", "it is hidden"),
        ],
    )
    def test_no_clip(self, path: str, why: str) -> None:
        with pytest.raises(ConfigError, match=rf"^job\.yaml: file_path = {path}: .*{why}"):
            run_input(None, None, None, None, job(f"file_path: {path}"))

    def test_no_prompt(self) -> None:
        with pytest.raises(ConfigError, match=r"^job\.yaml: prompt: \[9-1\] ends before"):
            run_input(None, None, None, None, job("file_path: data/a.mp4\nprompt: '[9-1] x'"))


class TestUsage:
    def test_nothing_to_translate(self) -> None:
        for base in (None, job("seed: 1")):
            with pytest.raises(click.UsageError, match="missing option --video-folder"):
                run_input(None, None, None, "a car", base)

    @pytest.mark.parametrize("prompt", ["", " ", "caf\udce9", "[0-]", "x" * 1_000_001])
    def test_a_prompt_that_is_none(self, prompt: str) -> None:
        with pytest.raises(click.UsageError, match=r"^--prompt: "):
            run_input(Path("data"), None, None, prompt, None)
