"""Settings of the models: which weights, and what ControlNets see."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from daemon.section import Section


def _in_list(value: Any) -> Any:
    return value if isinstance(value, tuple | list) else (value,)


def _in_list_at_commas(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return _in_list(value)


def _alone(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else list(values)


# One value or a list of them, held as a tuple.
_Names = Annotated[
    tuple[str, ...], BeforeValidator(_in_list), PlainSerializer(_alone), Field(min_length=1)
]
_ControlTypes = Annotated[
    tuple[Literal["hed", "canny", "depth"], ...],
    BeforeValidator(_in_list_at_commas),
    PlainSerializer(_alone),
    Field(min_length=1),
]
_ControlScales = Annotated[
    tuple[Annotated[float, Field(ge=0, le=2)], ...],
    BeforeValidator(_in_list_at_commas),
    PlainSerializer(_alone),
    Field(min_length=1),
]


class Models(Section):
    """Weights. Each is a hub id, a local folder in diffusers format or a .safetensors file."""

    base: str = Field(
        default="stable-diffusion-v1-5/stable-diffusion-v1-5",
        min_length=1,
        description="Base model, of the Stable Diffusion 1.5 kind.",
    )
    vae: str = Field(
        default="stabilityai/sd-vae-ft-mse",
        description='VAE that takes the place of the base model\'s own; "" keeps its own.',
    )
    controlnet: _Names = Field(
        default=("",),
        description=(
            'ControlNet; "" means lllyasviel/sd-controlnet-<control.type>. A list where '
            "control.type is one."
        ),
        json_schema_extra={"allowed": "a text, or a list of texts"},
    )
    loras: tuple[str, ...] = Field(
        default=(),
        description=(
            "LoRAs, each a file, folder or hub id and its weight, as in "
            '"night.safetensors:0.8"; all are merged into the base model.'
        ),
    )
    embeddings: tuple[str, ...] = Field(
        default=(),
        description=(
            "Textual inversions: files or hub ids. In a prompt the file's stem stands for one; "
            '"word=file" gives it another word.'
        ),
    )
    base_config: str = Field(
        default="",
        description=(
            "Folder or hub id with the configuration of a base model given as one file; "
            '"" means that of Stable Diffusion 1.5.'
        ),
    )
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = Field(
        default="auto", description="Precision; auto is float16 on a GPU and float32 on the CPU."
    )
    offline: bool = Field(
        default=False, description="Never ask the hub: use only what is on this machine."
    )


class Control(Section):
    """The control map that ties the result to the structure of the input."""

    enabled: bool = Field(default=True, description="Use a ControlNet.")
    type: _ControlTypes = Field(
        default=("hed",),
        description="Kind of control map; a list of kinds uses a ControlNet for each, together.",
        json_schema_extra={"allowed": "hed or canny or depth, or a list of them"},
    )
    scale: _ControlScales = Field(
        default=(0.7,),
        description="How strongly the control map binds; a list where type is one.",
        json_schema_extra={"allowed": "a number, 0 to 2, or a list of them"},
    )
    canny_low: int = Field(default=50, ge=0, le=1000, description="Lower threshold of canny.")
    canny_high: int = Field(default=100, ge=0, le=1000, description="Upper threshold of canny.")
    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto",
        description=(
            "Who draws control maps: cpu: CPU processes, ahead of time; gpu: the GPU; auto: the "
            "CPU, and a GPU that would have to wait draws what is missing."
        ),
    )
    source: _Names = Field(
        default=("",),
        description=(
            'Weights of the hed or depth detector: hub id or local path; "" the usual one. A list '
            "where type is one."
        ),
        json_schema_extra={"allowed": "a text, or a list of texts"},
    )
