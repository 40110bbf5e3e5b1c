"""Named settings that go together: ``--preset NAME``, or ``preset = "NAME"`` beside a clip."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daemon.config import Layer
from fresco_core.errors import ConfigError


@dataclass(frozen=True)
class Preset:
    """What it is for, and the settings it stands for: only those that a single clip may have."""

    about: str
    values: Mapping[str, Any]


PREVIEW = "preview"

PRESETS: Mapping[str, Preset] = {
    "sim2real": Preset(
        "A simulator's clip as if it were filmed: close to the input in every line, words that ask "
        "for a photo and none of a rendering.",
        {
            "translation.strength": 0.75,
            "translation.guidance_scale": 7.5,
            "control.scale": 0.8,
            "prompts.added": (
                "RAW photo, photorealistic, natural light, detailed textures, sharp focus"
            ),
            "prompts.negative": (
                "cgi, 3d, render, video game, low poly, cartoon, drawing, painting, plastic, "
                "oversaturated, blurry, lowres, worst quality, low quality"
            ),
        },
    ),
    "stylize": Preset(
        "A painting, a drawing, another material, whatever the prompt says: far from the input's "
        "colours, held to its shapes by the ControlNet, and no words added that ask for a photo.",
        {
            "translation.strength": 0.85,
            "translation.guidance_scale": 9.0,
            "translation.keep_colours": 0.0,
            "control.scale": 1.0,
            "prompts.added": "",
            "prompts.negative": (
                "lowres, blurry, deformed, text, watermark, worst quality, low quality"
            ),
        },
    ),
    PREVIEW: Preset(
        "A first look at low cost: the key frames of the first batch, a small one, as a contact "
        "sheet. The noise schedule stays as it is, so that the look does.",
        {
            "output.frames": "preview",
            "output.contact_sheet": True,
            "key_frames.batch_size": 4,
            "constraints.optimization_iterations": 5,
        },
    ),
    "published": Preset(
        "What the published FRESCO does where frescod has found something better or quicker: "
        "prompts read literally, and its own numbers for propagation, whatever config.toml says.",
        {
            "prompts.syntax": "literal",
            "propagation.quality": "reference",
            "propagation.patch": 5,
            "propagation.votes": 0,
            "propagation.sweeps": 0,
            "propagation.uniformity": 3500.0,
            "propagation.still": -2,
            "propagation.colour": 6.0,
            "propagation.edge": 0.5,
            "propagation.temporal": 0.5,
            "propagation.positional": 2.0,
            "propagation.inpaint_radius": 30,
            "propagation.inpaint_scale": 1,
            "propagation.timing": "published",
            "propagation.blend": "histogram",
            "propagation.poisson": True,
            "propagation.poisson_weights": [2.5, 0.5, 0.5],
            "propagation.poisson_clip": 100.0,
            "propagation.poisson_rounding": "down",
        },
    ),
}


def preset_layers(names: Sequence[str]) -> list[Layer]:
    """Their settings, in the order given: a later one goes before an earlier one."""
    return [Layer(f"preset {name}", PRESETS[name].values) for name in names]


def preset_names(source: str, value: Any) -> tuple[str, ...]:
    """The presets that a file's ``preset`` names: one, or several in a list.

    Raises:
        ConfigError: there is none of that name.
    """
    names = value if isinstance(value, list) else [value]
    for name in names:
        if isinstance(name, str) and name in PRESETS:
            continue
        near = difflib.get_close_matches(str(name), PRESETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"{source}: preset = {json.dumps(value, default=str)} is not allowed: give "
            f"{', '.join(PRESETS)}, or a list of them{hint}"
        )
    return tuple(names)
