"""Several devices at once: the same results as one clip after the other, by hand."""

import json
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from daemon.config import Layer, checked, merge
from daemon.demo_clip import render_clip
from daemon.settings import Settings
from daemon.stages import (
    key_frame_options,
    map_options,
    propagation_options,
    translation_options,
)
from fresco_core.batch import KeyFrameBatch
from fresco_core.flow import load_flow
from fresco_core.keyframes import resize_frame
from fresco_core.models import load_diffusion_models
from fresco_core.propagation import propagate
from fresco_core.tiny_model import make_tiny_model
from fresco_core.translator import FrescoTranslator
from io_pipeline.control_maps import load_detector
from io_pipeline.plan import ClipPlan
from io_pipeline.prepare import Prepare
from io_pipeline.video import ClipReader, ClipWriter
from tests.acceptance.test_run import QUICK, frescod

CLIPS = {"long": (96, 64, 31), "tall": (64, 96, 12), "short": (80, 80, 5), "one": (96, 64, 1)}
LOSSLESS = ("output.crf=0", "control.type=canny")
Frames = list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name, (width, height, frames) in CLIPS.items():
        render_clip(folder / f"{name}.mp4", width=width, height=height, frames=frames)
        (folder / f"{name}.txt").write_text(f"a {name} road")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def planned(clip: Path, settings: Settings) -> ClipPlan:
    prepare = Prepare(max_pixels=settings.limits.max_pixels)
    return prepare.plan(clip, key_frame_options(settings))


def by_hand(clip: Path, settings: Settings, model: tuple[Path, Path]) -> tuple[Frames, Frames]:
    """Key frames and frames of a clip: no processes, no windows in blocks, nothing side by side."""
    torch.set_num_threads(1)
    base, controlnet = model
    plan = planned(clip, settings)
    resolution = settings.key_frames.resolution
    with ClipReader(plan.info) as reader:
        frames = np.stack([resize_frame(frame, resolution) for frame in reader])
    models = load_diffusion_models(
        str(base), vae=None, controlnets=(str(controlnet),), device="cpu"
    )
    flow = load_flow("dis")
    translator = FrescoTranslator(models, flow, translation_options(settings))
    draw = partial(load_detector("canny"), options=map_options(settings))
    translated: Frames = []
    carry = None
    for batch in plan.batches:
        new = frames[list(batch.new)]
        maps = np.stack([draw(frame) for frame in new])[:, None]
        prompt = clip.with_suffix(".txt").read_text()
        result = translator.translate(KeyFrameBatch(new, maps, (prompt,) * len(new)), carry)
        translated += list(result.frames)
        carry = result.carry
    finished = [translated[0]]
    numbers = plan.key_numbers
    for i in range(len(numbers) - 1):
        some = frames[numbers[i] : numbers[i + 1] + 1]
        pairs = torch.from_numpy(some).permute(0, 3, 1, 2)
        there, back = flow(pairs[:-1], pairs[1:])
        options = propagation_options(settings)
        between = propagate(
            some, translated[i], translated[i + 1], there.numpy(), back.numpy(), options=options
        )
        finished += [*between, translated[i + 1]]
    return translated, finished


def decoded(path: Path) -> list[NDArray[np.uint8]]:
    """Planes as they are coded, no colour conversion."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def test_two_devices_make_what_is_made_by_hand(
    clips: Path, model: tuple[Path, Path], tmp_path: Path
) -> None:
    base, controlnet = model
    assignments = (*QUICK, *LOSSLESS, f"models.base={base}", f"models.controlnet={controlnet}")
    options = [f"--set={assignment}" for assignment in assignments]
    ran = frescod(
        "run",
        "--video-folder",
        clips,
        "--devices=cpu*2",
        "--timeline=t.json",
        *options,
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("4 done in "), ran.stdout
    assert "devices worked" in ran.stdout
    values = dict(assignment.split("=", 1) for assignment in assignments)
    settings = merge(checked(Layer("test", values, typed=False)))
    used = set()
    for name in CLIPS:
        result = tmp_path / "output" / name
        keys, frames = by_hand(clips / f"{name}.mp4", settings, model)
        manifest = json.loads((result / "manifest.json").read_bytes())
        used |= set(manifest["devices"])
        for number, key in zip(manifest["key_frames"], keys, strict=True):
            with av.open(str(result / "keys" / f"{number:04d}.png")) as picture:
                (frame,) = picture.decode(video=0)
                assert np.array_equal(frame.to_ndarray(format="rgb24"), key), (name, number)
        expected = tmp_path / f"{name}.mp4"
        plan = planned(clips / f"{name}.mp4", settings)
        with ClipWriter(expected, plan.info, crf=0) as writer:
            for frame in frames:
                writer.write(frame)
        made, wanted = decoded(result / "blend.mp4"), decoded(expected)
        assert len(made) == len(wanted) == CLIPS[name][2]
        assert all(map(np.array_equal, made, wanted)), name
    assert used == {"cpu 1", "cpu 2"}

    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    translations = [event for event in events if event.get("name") == "translate"]
    assert len({event["tid"] for event in translations}) == 2
    assert any(event.get("name") == "match" for event in events)  # by the CPU pool, ahead
    assert (tmp_path / "t.png").stat().st_size > 10_000
    hidden = [path.name for path in (tmp_path / "output").iterdir() if path.name[0] == "."]
    assert hidden == [".frescod"]
