"""What the README says is so."""

import re
import shlex

from tests.conftest import ROOT


def test_files_that_the_readme_names_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / name).exists(), name


def test_models_pull_fetches_what_run_needs() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    night = text.partition("## A night's folder")[2].partition("## ")[0]
    (pull,) = re.findall(r"^frescod models pull (.*)$", night, re.MULTILINE)
    (run,) = re.findall(r"^frescod run (.*)$", night, re.MULTILINE)

    def chosen(words: str) -> dict[str, str]:
        options = shlex.split(words, comments=True)
        return dict(zip(options[::2], options[1::2], strict=True))

    folders = {"--video-folder", "--prompt-folder", "--output-folder"}
    assert chosen(pull) == {
        name: value for name, value in chosen(run).items() if name not in folders
    }


def test_the_library_example_runs(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from fresco_core.tiny_model import make_tiny_model
    from tests.fresco_core.scenes import panning

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    example = example.replace('"cuda"', '"cpu"').replace("float16", "float32")
    base, controlnet = make_tiny_model(tmp_path)
    scene = panning(4, 64, 64)
    given = {
        "base": str(base),
        "controlnet": str(controlnet),
        "frames": scene[:2],
        "control_maps": scene[:2, ..., 0][:, None],
        "more": scene[2:],
        "more_maps": scene[2:, ..., 0][:, None],
        "prompts": ("a car", "a car"),
    }
    exec(example, given)
    assert given["second"].frames.shape == (2, 64, 64, 3)
