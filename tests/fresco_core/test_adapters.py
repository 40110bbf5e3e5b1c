"""LoRAs: every published format, every layer, and what does not fit."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fresco_core.adapters import fuse_loras
from fresco_core.errors import ModelsError
from fresco_core.lora_layers import lora_layers
from fresco_core.model_set import check_models
from fresco_core.models import DiffusionModels, load_diffusion_models
from tests.fresco_core import original_layout
from tests.fresco_core.adapters import ALPHA, RANK, TEXT, UNET, change, write_lora


@pytest.fixture(scope="module")
def plain(tiny: tuple[Path, Path]) -> DiffusionModels:
    return load_diffusion_models(str(tiny[0]))


def unet_state(models: DiffusionModels) -> dict[str, Tensor]:
    return dict(models.unet.state_dict())


def text_state(models: DiffusionModels) -> dict[str, Tensor]:
    state = models.text_encoder.state_dict()
    return {name.removeprefix("text_model."): tensor for name, tensor in state.items()}


def write(path: Path, models: DiffusionModels, form: str = "kohya", **layers: Any) -> Path:
    return write_lora(path, unet_state(models), text_state(models), form, **layers)


def assert_changed(
    before: DiffusionModels, after: DiffusionModels, scale: float, seed: int = 0
) -> None:
    """Exactly the layers of `write_lora` have changed, and as they should."""
    changes = {f"{name}.weight" for name in (*UNET, *TEXT)}
    for state in (unet_state, text_state):
        old, new = state(before), state(after)
        assert old.keys() == new.keys()
        assert {name for name in old if not torch.equal(old[name], new[name])} == (
            changes & old.keys()
        )
    for number, name in enumerate((*UNET, *TEXT), seed):
        state = unet_state if name in UNET else text_state
        old, new = (state(models)[f"{name}.weight"] for models in (before, after))
        assert torch.allclose(new, old + change(old, number, scale), atol=1e-6)


@pytest.mark.parametrize(
    ("form", "scale", "weight"),
    [("kohya", ALPHA / RANK, 0.5), ("peft", 1, 1.0), ("old", 1, -0.3)],
)
def test_a_lora_changes_its_layers_by_its_weight(
    tiny: tuple[Path, Path],
    plain: DiffusionModels,
    tmp_path: Path,
    form: str,
    scale: float,
    weight: float,
) -> None:
    path = write(tmp_path / "lora.safetensors", plain, form)
    changed = load_diffusion_models(str(tiny[0]), loras=(f"{path}:{weight}",))
    assert_changed(plain, changed, scale * weight)


def test_a_lora_works_on_a_single_file_base_model_too(
    tiny: tuple[Path, Path], plain: DiffusionModels, tmp_path: Path
) -> None:
    path = write(tmp_path / "lora.safetensors", plain)
    original_layout.write_base(tiny[0], tmp_path / "base.safetensors")
    sources = {"base_config": str(tiny[0]), "loras": (str(path),)}
    changed = load_diffusion_models(str(tmp_path / "base.safetensors"), **sources)  # type: ignore[arg-type]
    assert_changed(plain, changed, ALPHA / RANK)


def test_loras_add_up(tiny: tuple[Path, Path], plain: DiffusionModels, tmp_path: Path) -> None:
    path = write(tmp_path / "lora.safetensors", plain)
    both = load_diffusion_models(str(tiny[0]), loras=(f"{path}:0.5", f"{path}:0.25"))
    assert_changed(plain, both, 0.75 * ALPHA / RANK)


def test_half_precision_is_rounded_once(
    tiny: tuple[Path, Path], plain: DiffusionModels, tmp_path: Path
) -> None:
    path = write(tmp_path / "lora.safetensors", plain)
    half = load_diffusion_models(str(tiny[0]), loras=(str(path),), dtype=torch.float16)
    name = f"{UNET[0]}.weight"
    old = unet_state(plain)[name].half()
    expected = (old.float() + change(old.float(), 0, ALPHA / RANK)).half()
    assert torch.equal(unet_state(half)[name], expected)


@pytest.mark.parametrize("form", ["kohya", "peft", "old"])
def test_every_layer_of_a_base_model_can_be_changed(
    tiny: tuple[Path, Path], plain: DiffusionModels, tmp_path: Path, form: str
) -> None:
    layers = {
        part: [
            name.removeprefix("text_model.")
            for name, layer in network.named_modules()
            if isinstance(layer, nn.Linear | nn.Conv2d)
        ]
        for part, network in (("unet", plain.unet), ("text", plain.text_encoder))
    }
    path = write(
        tmp_path / "lora.safetensors",
        plain,
        form,
        unet_layers=layers["unet"],
        text_layers=layers["text"],
    )
    check_models(str(tiny[0]), loras=(str(path),))
    changed = load_diffusion_models(str(tiny[0]), loras=(str(path),))
    for part, state in (("unet", unet_state), ("text", text_state)):
        for name in layers[part]:
            assert not torch.equal(state(plain)[f"{name}.weight"], state(changed)[f"{name}.weight"])


@pytest.mark.parametrize(
    ("name", "part", "expected"),
    [
        ("unet.mid_block.attn1.processor.to_q_lora.down", "unet", "mid_block_attn1_to_q"),
        ("mid_block.attn1.processor.to_out_lora.down", "unet", "mid_block_attn1_to_out_0"),
        ("base_model.model.conv_in.lora_A", "unet", "conv_in"),
        ("unet.conv_in.lora_A.default", "unet", "conv_in"),
        ("lora_te1_text_model_layers_0_fc1.lora_down", "text_encoder", "layers_0_fc1"),
        (
            "text_encoder.layers.0.self_attn.to_v_lora.down",
            "text_encoder",
            "layers_0_self_attn_v_proj",
        ),
        ("text_encoder.layers.0.fc1.lora_linear_layer.down", "text_encoder", "layers_0_fc1"),
    ],
)
def test_names_of_all_formats_are_understood(name: str, part: str, expected: str) -> None:
    (layer,) = lora_layers([f"{name}.weight", "another.alpha"])
    assert (layer.part, layer.name) == (part, expected)


@pytest.mark.parametrize(
    ("described", "scale"),
    [
        ({"unet.lora_alpha": 8, "unet.r": 2}, 4.0),
        ({"unet.lora_alpha": 8, "unet.use_rslora": True}, 8 / 2**0.5),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2}}, 1.0),
        ({"text_encoder.lora_alpha": 8}, 1.0),
    ],
)
def test_numbers_that_peft_keeps_beside_the_tensors_count(
    tiny: tuple[Path, Path],
    plain: DiffusionModels,
    tmp_path: Path,
    described: dict[str, object],
    scale: float,
) -> None:
    path = write(tmp_path / "lora.safetensors", plain, "peft", text_layers=())
    save_file(load_file(path), path, {"lora_adapter_metadata": json.dumps(described)})
    changed = load_diffusion_models(str(tiny[0]), loras=(str(path),))
    name = f"{UNET[0]}.weight"
    old = unet_state(plain)[name]
    assert torch.allclose(unet_state(changed)[name], old + change(old, 0, scale), atol=1e-6)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ("[1]", "damaged metadata"),
        ("null", "damaged metadata"),
        ("{", "damaged metadata"),
        ('{"unet.lora_alpha": "x"}', "no number as alpha of down_blocks_0_"),
        ('{"unet.lora_alpha": [1]}', "no number as alpha"),
        ('{"unet.alpha_pattern": [1]}', "no number as alpha"),
    ],
)
def test_metadata_that_is_none_of_pefts_is_refused(
    plain: DiffusionModels, tmp_path: Path, described: str, message: str
) -> None:
    path = write(tmp_path / "lora.safetensors", plain, "peft", text_layers=())
    save_file(load_file(path), path, {"lora_adapter_metadata": described})
    with pytest.raises(ModelsError, match=rf"lora\.safetensors has {message}"):
        fuse_loras(deepcopy(plain.unet), plain.text_encoder, [(path, 1.0)])


def down(width: int) -> Tensor:
    return torch.zeros(RANK, width)


_ATTENTION = "attentions_0_transformer_blocks_0"
_TEXT = "text_model_encoder_layers_0_self_attn_q_proj"
WRONG: dict[str, tuple[dict[str, Tensor], str]] = {
    "text width": (
        {f"lora_unet_down_blocks_1_{_ATTENTION}_attn2_to_k.lora_down.weight": down(2048)},
        "has text width 2048, the base model 32",
    ),
    "text encoder": (
        {f"lora_te_{_TEXT}.lora_down.weight": down(1024)},
        "has text encoder width 1024, the base model 32",
    ),
    "first width": (
        {f"unet.down_blocks.0.{_ATTENTION}.attn1.to_q.lora_A.weight": down(320)},
        "has first width 320, the base model 16",
    ),
    "XL": (
        {f"lora_te2_{_TEXT}.lora_down.weight": down(32)},
        "for another architecture .*lora_te2_.*Stable Diffusion XL",
    ),
    "Flux": (
        {"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": down(32)},
        "for another architecture",
    ),
    "another method": (
        {"lora_unet_down_blocks_0_attentions_0_proj_in.hada_w1_a": down(16)},
        "hada_w1_a, of a method that frescod does not know",
    ),
    "no LoRA": ({"conv_in.weight": down(4)}, "is no LoRA"),
    "unknown layer": (
        {"lora_unet_down_blocks_7_resnets_0_conv1.lora_down.weight": down(4)},
        "changes down_blocks_7_resnets_0_conv1, which the base model's unet has not",
    ),
    "half of it": (
        {"lora_unet_time_embedding_linear_1.lora_down.weight": down(16)},
        "lacks lora_unet_time_embedding_linear_1.lora_up.weight: fetch it again",
    ),
    "a factor of one dimension": (
        {
            "lora_unet_time_embedding_linear_1.lora_down.weight": torch.zeros(RANK),
            "lora_unet_time_embedding_linear_1.lora_up.weight": torch.zeros(64),
        },
        r"by factors of shape \(2,\) and \(64,\), the base model's is \(64, 16\)",
    ),
    "an attention's factor of one dimension": (
        {f"lora_unet_down_blocks_1_{_ATTENTION}_attn2_to_k.lora_down.weight": torch.zeros(RANK)},
        "has text width None, the base model 32",
    ),
    "shape": (
        {
            "lora_unet_time_embedding_linear_1.lora_down.weight": down(17),
            "lora_unet_time_embedding_linear_1.lora_up.weight": torch.zeros(64, RANK),
        },
        r"by factors of shape \(2, 17\) and \(64, 2\), the base model's is \(64, 16\)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_lora_that_does_not_fit_is_refused_before_anything_is_loaded(
    tiny: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    tensors, message = WRONG[name]
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path)
    with pytest.raises(ModelsError, match=message) as caught:
        check_models(str(tiny[0]), loras=(str(path),))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_lora_that_does_not_fit_a_single_file_is_refused_when_it_is_loaded(
    tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    path, base = tmp_path / "lora.safetensors", tmp_path / "base.safetensors"
    save_file(WRONG["unknown layer"][0], path)
    original_layout.write_base(tiny[0], base)
    sources = {"base_config": str(tiny[0]), "loras": (str(path),)}
    with pytest.raises(ModelsError, match=WRONG["unknown layer"][1]):
        load_diffusion_models(str(base), **sources)  # type: ignore[arg-type]


def test_a_lora_without_numbers_is_refused(
    tiny: tuple[Path, Path], plain: DiffusionModels, tmp_path: Path
) -> None:
    path = write(tmp_path / "lora.safetensors", plain)
    tensors = {name: tensor * torch.nan for name, tensor in load_file(path).items()}
    save_file(tensors, path)
    with pytest.raises(ModelsError, match="has NaN or infinity"):
        load_diffusion_models(str(tiny[0]), loras=(str(path),))
