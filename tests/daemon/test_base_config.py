from pathlib import Path

import pytest

from daemon.base_config import AS_PUBLISHED, KEYS, BaseConfig, read_base_config
from daemon.config import Layer, merge
from daemon.settings import Settings
from daemon.stages import (
    key_frame_options,
    make_stages,
    propagation_options,
    translation_options,
)
from fresco_core.errors import ConfigError
from tests.conftest import ROOT


def read(tmp_path: Path, text: str) -> tuple[Settings, tuple[str, ...]]:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    job = read_base_config(file)
    return merge(job.layer), job.warnings


EMPTY = merge(Layer("as published", AS_PUBLISHED))  # what a file without keys gives


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    return str(error.value)


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("mininterv: 2", "key_frames.min_interval", 2),
        ("maxinterv: 30", "key_frames.max_interval", 30),
        ("batch_size: 6", "key_frames.batch_size", 6),
        ("seed: 7", "translation.seed", 7),
        ("num_inference_steps: 30", "translation.steps", 30),
        ("num_warmup_steps: 3", "translation.warmup_steps", 3),
        ("num_warmup_steps: -5", "translation.warmup_steps", -1),
        ("sd_path: some/model", "models.base", "some/model"),
        ("use_controlnet: false", "control.enabled", False),
        ("controlnet_type: depth", "control.type", ("depth",)),
        ("controlnet_type: HED", "control.type", ("hed",)),
        ("cond_scale: 1", "control.scale", (1.0,)),
        ("end_opt_step: 12", "constraints.optimization_end", 12),
        ("controlnet_type: [hed, depth]", "control.type", ("hed", "depth")),
        ("use_salinecy: false", "constraints.background_smoothing", False),
        ("use_freeu: true", "freeu.enabled", True),
        ("gmflow_path: ./model/gmflow.pth", "flow.weights", "./model/gmflow.pth"),
        ("gmflow_path: ./model/gmflow.pth", "flow.model", "gmflow"),
        ("sod_path: ./model/epoch_resnet.pth", "saliency.weights", "./model/epoch_resnet.pth"),
        ("sod_path: ./model/epoch_resnet.pth", "saliency.model", "egnet"),
        ("run_ebsynth: false", "output.frames", "keys"),
        ("run_ebsynth: true", "output.frames", "all"),
        ("max_process: 4", "propagation.processes", 4),
        ("seed: 0", "prompts.syntax", "literal"),
    ],
)
def test_key_takes_effect(tmp_path: Path, line: str, key: str, value: object) -> None:
    settings, warnings = read(tmp_path, line)
    section, _, name = key.partition(".")
    assert getattr(getattr(settings, section), name) == value
    assert not warnings


@pytest.mark.parametrize("line", ["gmflow_path:", "sod_path: ''", "file_path:", "prompt: ''"])
def test_an_empty_path_says_nothing(tmp_path: Path, line: str) -> None:
    assert read(tmp_path, line) == (EMPTY, ())


def test_saliency_weights_may_be_absent_where_none_are_used(tmp_path: Path) -> None:
    weights = tmp_path / "resnet.pth"
    text = f"use_salinecy: false\nsod_path: {weights}\n"
    assert read(tmp_path, text)[0].saliency == Settings().saliency
    assert read(tmp_path, text.replace("false", "true"))[0].saliency.weights == str(weights)
    weights.touch()  # they count for a clip that is smoothed after all
    assert read(tmp_path, text)[0].saliency.weights == str(weights)
    assert "sod_path = 5 is not allowed" in refusal(tmp_path, "use_salinecy: false\nsod_path: 5")


def test_the_clip_a_file_was_written_for(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("file_path: ./in/a.mp4\nsave_path: ./out/a/\nprompt: 'a car, '\n")
    job = read_base_config(file)
    assert (job.clip, job.output, job.prompt) == (Path("in/a.mp4"), Path("out/a"), "a car, ")
    (warning,) = job.warnings  # told where other clips are translated
    assert warning.startswith(f"{file}: file_path, save_path, prompt: of the one clip")
    file.write_text("video_path: b.mp4\nfile_path:\nprompt: ''\n")
    job = read_base_config(file)
    assert (job.clip, job.output, job.prompt) == (Path("b.mp4"), None, None)


@pytest.mark.parametrize("line", ["prompt: [1]", "file_path: 5", "save_path: true"])
def test_a_clips_own_keys_are_texts(tmp_path: Path, line: str) -> None:
    assert "is not allowed: give text" in refusal(tmp_path, line)


def test_every_key_of_the_published_code_is_known() -> None:
    keys = (
        "file_path save_path mininterv maxinterv seed prompt sd_path use_controlnet "
        "controlnet_type cond_scale use_freeu batch_size num_inference_steps num_warmup_steps "
        "end_opt_step run_ebsynth max_process gmflow_path sod_path use_salinecy video_path"
    )
    assert sorted(keys.split()) == sorted(KEYS)


# One line for each key, which changes something.
LINES = """\
mininterv: 2
maxinterv: 9
batch_size: 5
seed: 1
num_inference_steps: 30
num_warmup_steps: 2
sd_path: a/b
use_controlnet: false
controlnet_type: canny
cond_scale: 1.0
use_freeu: true
end_opt_step: 9
run_ebsynth: false
max_process: 2
gmflow_path: a.pth
sod_path: b.pth
use_salinecy: false
file_path: a.mp4
video_path: a.mp4
save_path: out
prompt: a car
""".splitlines()


def told(job: BaseConfig) -> list[object]:
    """What workers, or a run, are told by the settings and by the file itself."""
    settings = merge(job.layer)
    stages = make_stages(settings, lambda: 0)
    return [
        (job.clip, job.output, job.prompt),
        stages.cpu,
        stages.device("cpu"),
        key_frame_options(settings),
        translation_options(settings),
        propagation_options(settings),
        settings.output.frames,
        settings.propagation.processes,
    ]


def test_every_key_reaches_who_does_it(tmp_path: Path) -> None:
    assert sorted(line.partition(":")[0] for line in LINES) == sorted(KEYS)
    file = tmp_path / "job.yaml"
    file.write_text("")
    nothing = told(read_base_config(file))
    for line in LINES:
        file.write_text(line)
        assert told(read_base_config(file)) != nothing, line


def test_unknown_key_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    assert refusal(tmp_path, "mininterval: 5").endswith(
        "job.yaml: mininterval: no such key; did you mean mininterv?"
    )
    assert "did you mean use_salinecy?" in refusal(tmp_path, "use_saliency: true")


def test_bad_value_is_refused_by_its_yaml_name(tmp_path: Path) -> None:
    message = refusal(tmp_path, "batch_size: 2")
    assert "job.yaml: batch_size = 2 is not allowed: give a whole number, 3 to 16" in message


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("seed: true", "a whole number"),
        ('batch_size: "8"', "a whole number, 3 to 16"),
        ("num_warmup_steps: true", "a whole number"),
        ("num_warmup_steps: false", "a whole number"),
        ('cond_scale: "0.7"', "a number, 0 to 2"),
        ('use_controlnet: "false"', "true or false"),
        ('use_freeu: "false"', "true or false"),
        ('max_process: "4"', "a whole number, 0 to 4096"),
        ("gmflow_path: true", "text"),
        ("run_ebsynth: 1", "true or false"),
    ],
)
def test_value_of_another_type_is_refused(tmp_path: Path, line: str, allowed: str) -> None:
    message = refusal(tmp_path, line)
    assert f"job.yaml: {line.replace(':', ' =')} is not allowed: give {allowed}" in message


def test_a_key_that_is_there_twice(tmp_path: Path) -> None:
    assert refusal(tmp_path, "seed: 1\nprompt: a\nseed: 2\n").endswith(
        "job.yaml: not a job file: line 3: seed is in line 1 already: remove one of both"
    )
    assert "line 1: b is in line 1 already" in refusal(tmp_path, "{a: {b: 1, b: 1}}")


@pytest.mark.parametrize(
    "text",
    [
        "? [1]\n: 2",
        "a: [1",
        "- 1\n- 2\n",
        "!!python/object/apply:os.getcwd []",
        "\x00",
        "!!map [a, b]",
        "prompt: !!set [a]",
    ],
)
def test_not_a_job_file(tmp_path: Path, text: str) -> None:
    message = refusal(tmp_path, text)
    assert "job.yaml: " in message
    assert "\n" not in message
    assert "byte string" not in message


def test_empty_file_changes_only_how_prompts_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, "") == (EMPTY, ())


@pytest.mark.parametrize(
    "file", sorted((ROOT / "config").glob("*.yaml")), ids=lambda file: file.name
)
def test_examples_are_valid(file: Path) -> None:
    job = read_base_config(file)
    assert merge(job.layer) != Settings()
    assert job.clip is not None
    assert job.prompt
