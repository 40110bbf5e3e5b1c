"""``frescod demo``: everything, from drawing a clip to its result, without a download."""

import time
from pathlib import Path

import click
import torch
from transformers.utils.logging import disable_progress_bar

from daemon.config import Layer, checked, merge
from daemon.demo_clip import render_clip
from daemon.one_shot import run_folder
from daemon.progress import duration
from fresco_core.errors import FrescodError
from fresco_core.tiny_model import make_tiny_model

NAME = "drive"
PROMPT = "a photo of a road with cars on a sunny day\nNegative prompt: drawing, flat colours\n"


def run_demo(folder: Path) -> int:
    """Draw a clip, make a tiny model, run both through the ordinary one-shot mode on the CPU.

    Returns:
        the exit code of the run.

    Raises:
        FrescodError: the folder cannot be written.
    """
    start = time.monotonic()
    disable_progress_bar()  # of writing the model
    torch.set_num_threads(1)  # networks this small lose more by waiting for threads than they gain
    clips, output = folder / "clips", folder / "output"
    try:
        clips.mkdir(parents=True, exist_ok=True)
        render_clip(clips / f"{NAME}.mp4")
        (clips / f"{NAME}.txt").write_text(PROMPT, encoding="utf-8")
        base, controlnet = make_tiny_model(folder / "model", fitted=True)
    except OSError as error:
        raise FrescodError(f"{folder}: cannot be written: {error.strerror}") from error
    settings = merge(
        checked(
            Layer(
                "demo",
                {
                    "devices": "cpu",
                    "models.base": str(base),
                    "models.vae": "",
                    "models.controlnet": str(controlnet),
                    "models.offline": True,
                    "key_frames.min_interval": 6,
                    "key_frames.max_interval": 6,
                    "key_frames.batch_size": 4,
                    "key_frames.resolution": 192,
                    "translation.steps": 10,
                    "translation.warmup_steps": 8,
                    # The model can do the end of the schedule only; all constraints act there.
                    "constraints.temporal_attention_end": 100,
                    "constraints.optimization_end": 9,
                    "constraints.optimization_iterations": 3,
                    "control.type": "canny",
                    "flow.model": "dis",
                    "saliency.model": "motion",
                    "propagation.votes": 3,
                    "propagation.sweeps": 2,
                },
            )
        )
    )
    code = run_folder(clips, clips, output, settings, force=True)
    if code == 0:
        result = output / NAME
        click.echo(
            f"demo finished in {duration(time.monotonic() - start)} (no real weights: expect "
            "a blurred painting, not a photo)\n"
            f"  clip           {clips / NAME}.mp4\n"
            f"  result         {result / 'blend.mp4'}\n"
            f"  comparison     {result / 'comparison.mp4'}\n"
            f"  contact sheet  {result / 'contact_sheet.png'}"
        )
    return code
