"""Whether networks fit together, told from configurations and file headers."""

from pathlib import Path
from typing import Any

from fresco_core.checkpoint import Shapes, read_config, tensor_shapes
from fresco_core.errors import ModelsError
from fresco_core.model_files import SCHEDULER_CONFIG

SD15 = "frescod needs models of the Stable Diffusion 1.5 kind"


def check_base(place: Path, config_folder: Path) -> dict[str, Any]:
    """Refuse what is not of the Stable Diffusion 1.5 kind; returns the UNet's configuration."""
    unet = read_config(config_folder / "unet" / "config.json")
    text = read_config(config_folder / "text_encoder" / "config.json")
    schedule = read_config(config_folder / SCHEDULER_CONFIG)
    kind = read_config(config_folder / "model_index.json").get("_class_name", "")
    if unet.get("in_channels", 4) != 4:
        raise ModelsError(
            f"base model {place} takes {unet['in_channels']} latent channels, not 4 (a model for "
            f"inpainting or editing?): {SD15}"
        )
    width = unet.get("cross_attention_dim", 1280)
    if "XL" in kind:
        raise ModelsError(f"base model {place} is Stable Diffusion XL: {SD15}")
    if text.get("hidden_size") != width:
        raise ModelsError(
            f"base model {place}: its text encoder ({text.get('hidden_size')} wide) and UNet "
            f"({width}) do not make a pair: {SD15}"
        )
    prediction = schedule.get("prediction_type", "epsilon")
    if prediction != "epsilon":
        raise ModelsError(f"base model {place} predicts {prediction}, not epsilon: {SD15}")
    if (config_folder / "vae" / "config.json").is_file():
        check_vae(config_folder / "vae" / "config.json")
    if place.is_file():
        _check_original_layout(place, tensor_shapes(place), unet)
    return unet


def _check_original_layout(place: Path, shapes: Shapes, unet: dict[str, Any]) -> None:
    prefix = "model.diffusion_model.input_blocks."
    first = shapes.get(f"{prefix}0.0.weight")
    words = shapes.get(f"{prefix}1.1.transformer_blocks.0.attn2.to_k.weight")
    text = "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"
    if any(name.startswith("conditioner.embedders.1.") for name in shapes):
        raise ModelsError(f"base model {place} is Stable Diffusion XL: {SD15}")
    if first is None or words is None or text not in shapes:
        raise ModelsError(
            f"base model {place} is not laid out like a Stable Diffusion 1.5 file: {SD15}"
        )
    expected = (unet["block_out_channels"][0], 4, unet["cross_attention_dim"])
    if (first[0], first[1], words[1]) != expected:
        raise ModelsError(
            f"base model {place} has first width, latent channels, text width "
            f"{(first[0], first[1], words[1])}; its configuration says {expected}: {SD15}, or "
            "name its own configuration as base_config"
        )


def check_vae(config_path: Path) -> None:
    vae = read_config(config_path)
    channels = vae.get("latent_channels", 4)
    factor = 2 ** (len(vae.get("block_out_channels", (1,))) - 1)
    if (channels, factor) != (4, 8):
        raise ModelsError(
            f"VAE {config_path.parent} has {channels} latent channels at 1/{factor} of the size, "
            f"not 4 at 1/8: {SD15}"
        )


def check_controlnet(place: Path, unet: dict[str, Any]) -> None:
    wanted = {
        "first width": unet["block_out_channels"][0],
        "text width": unet["cross_attention_dim"],
    }
    if place.is_dir():
        config = read_config(place / "config.json")
        wanted["block widths"] = list(unet["block_out_channels"])
        wanted["layers per block"] = unet.get("layers_per_block", 2)
        found = {
            "first width": (config.get("block_out_channels") or [None])[0],
            "text width": config.get("cross_attention_dim"),
            "block widths": list(config.get("block_out_channels", ())),
            "layers per block": config.get("layers_per_block", 2),
        }
    else:
        shapes = tensor_shapes(place)
        first = shapes.get("control_model.input_blocks.0.0.weight", shapes.get("conv_in.weight"))
        words = [shape for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")]
        if first is None or not words or not hint_widths(shapes):
            raise ModelsError(f"{place} is no ControlNet for Stable Diffusion 1.5")
        found = {"first width": first[0], "text width": words[0][1]}
    for name, value in wanted.items():
        if found[name] != value:
            raise ModelsError(
                f"ControlNet {place} has {name} {found[name]}, the base model {value}: choose a "
                "ControlNet made for this base model"
            )


def hint_widths(shapes: Shapes) -> list[int]:
    """Widths of the layers that read the control map, in either layout; empty if there are none."""
    original = [f"control_model.input_hint_block.{i}.weight" for i in (0, 4, 8, 12)]
    embedding = "controlnet_cond_embedding"
    ours = [f"{embedding}.conv_in.weight", *(f"{embedding}.blocks.{i}.weight" for i in (1, 3, 5))]
    for names in (original, ours):
        if all(name in shapes for name in names):
            return [shapes[name][0] for name in names]
    return []
