"""Loading models: every form, every precision, every way to be wrong."""

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fresco_core.errors import ModelsError
from fresco_core.model_files import DEFAULT_BASE_CONFIG
from fresco_core.models import (
    DiffusionModels,
    load_diffusion_models,
    missing_models,
)
from fresco_core.tiny_model import make_tiny_model
from tests.fresco_core import original_layout


@pytest.fixture(scope="module")
def from_folders(tiny: tuple[Path, Path]) -> DiffusionModels:
    return load_diffusion_models(str(tiny[0]), controlnets=(str(tiny[1]),), offline=True)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def assert_same_weights(first: Any, second: Any) -> None:
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def networks(models: DiffusionModels) -> dict[str, Any]:
    (controlnet,) = models.controlnets
    parts = {name: getattr(models, name) for name in ("unet", "vae", "text_encoder")}
    return parts | {"controlnet": controlnet}


def test_folders_give_frozen_networks_and_a_ddpm_schedule(from_folders: DiffusionModels) -> None:
    for part in networks(from_folders).values():
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())
    scheduler = from_folders.scheduler
    assert type(scheduler).__name__ == "DDPMScheduler"
    scheduler.set_timesteps(20)
    assert scheduler.timesteps.tolist() == [*range(951, 0, -50)]
    assert from_folders.tokenizer.model_max_length == 77
    assert from_folders.device == torch.device("cpu")


def test_the_schedule_is_ddpm_whatever_scheduler_the_base_model_names(base: Path) -> None:
    (base / "scheduler" / "scheduler_config.json").write_text(
        json.dumps(
            {  # as Stable Diffusion 1.5 ships it
                "_class_name": "PNDMScheduler",
                "beta_end": 0.012,
                "beta_schedule": "scaled_linear",
                "beta_start": 0.00085,
                "num_train_timesteps": 1000,
                "set_alpha_to_one": False,
                "skip_prk_steps": True,
                "steps_offset": 1,
                "trained_betas": None,
                "clip_sample": False,
            }
        )
    )
    scheduler = load_diffusion_models(str(base)).scheduler
    scheduler.set_timesteps(20)
    assert scheduler.timesteps.tolist() == [*range(951, 0, -50)]
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    torch.testing.assert_close(
        scheduler.alphas_cumprod.double(), (1 - betas).cumprod(0), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("form", ["folder", "file"])
def test_every_network_has_the_precision_asked_for(
    tiny: tuple[Path, Path],
    files: dict[str, Path],
    from_folders: DiffusionModels,
    dtype: torch.dtype,
    form: str,
) -> None:
    if form == "folder":
        models = load_diffusion_models(str(tiny[0]), controlnets=(str(tiny[1]),), dtype=dtype)
    else:
        models = load_diffusion_models(
            str(files["base"]),
            controlnets=(str(files["controlnet"]),),
            dtype=dtype,
            base_config=str(tiny[0]),
        )
    for name, part in networks(models).items():
        assert {parameter.dtype for parameter in part.parameters()} == {dtype}
        assert_same_weights(part, deepcopy(networks(from_folders)[name]).to(dtype))
    assert models.dtype == dtype


@pytest.fixture(scope="module")
def files(tiny: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    names = ("base", "vae", "controlnet")
    paths = {name: folder / f"{name}.safetensors" for name in names}
    original_layout.write_base(tiny[0], paths["base"])
    original_layout.write_vae(tiny[0] / "vae", paths["vae"])
    original_layout.write_controlnet(tiny[1], paths["controlnet"])
    weights = "diffusion_pytorch_model.safetensors"
    paths["new vae"] = Path(shutil.copy(tiny[0] / "vae" / weights, folder / "new_vae.safetensors"))
    paths["new controlnet"] = Path(shutil.copy(tiny[1] / weights, folder / "new_cn.safetensors"))
    return paths


@pytest.mark.parametrize("own_vae", [True, False])
@pytest.mark.parametrize("layout", ["", "new "])
def test_single_files_give_the_same_weights_as_folders(
    tiny: tuple[Path, Path],
    files: dict[str, Path],
    from_folders: DiffusionModels,
    own_vae: bool,
    layout: str,
    no_network: None,
) -> None:
    models = load_diffusion_models(
        str(files["base"]),
        vae=None if own_vae else str(files[layout + "vae"]),
        controlnets=(str(files[layout + "controlnet"]),),
        base_config=str(tiny[0]),
    )
    for name, part in networks(models).items():
        assert_same_weights(part, networks(from_folders)[name])
    assert models.vae.config.scaling_factor == 0.18215
    text = "a red car"
    assert models.tokenizer(text).input_ids == from_folders.tokenizer(text).input_ids


def test_another_vae_takes_the_place_of_the_base_models(
    tiny: tuple[Path, Path], base: Path, tmp_path: Path
) -> None:
    other = make_tiny_model(tmp_path / "other", seed=1)[0] / "vae"
    shutil.rmtree(base / "vae")  # not even needed then
    models = load_diffusion_models(str(base), vae=str(other))
    loaded = load_diffusion_models(str(other.parent)).vae
    assert_same_weights(models.vae, loaded)


@pytest.mark.parametrize("variant", ["fp16", "shards"])
def test_variants_of_weight_files_are_found(
    base: Path, from_folders: DiffusionModels, variant: str
) -> None:
    folder = base / "unet"
    path = folder / "diffusion_pytorch_model.safetensors"
    if variant == "fp16":
        half = {name: tensor.half() for name, tensor in load_file(path).items()}
        save_file(half, path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    else:
        weights = load_file(path)
        names = sorted(weights)
        halves = {1: names[: len(names) // 2], 2: names[len(names) // 2 :]}
        places = {}
        for number, part in halves.items():
            shard = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
            save_file({name: weights[name] for name in part}, folder / shard)
            places |= dict.fromkeys(part, shard)
        index = {"metadata": {"total_size": path.stat().st_size}, "weight_map": places}
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    path.unlink()
    unet = load_diffusion_models(str(base)).unet
    for name, tensor in from_folders.unet.state_dict().items():
        expected = tensor.half().float() if variant == "fp16" else tensor
        assert torch.equal(unet.state_dict()[name], expected)


@pytest.mark.parametrize("with_prefix", [True, False])
def test_text_encoders_of_older_and_newer_libraries_load(
    base: Path, from_folders: DiffusionModels, with_prefix: bool
) -> None:
    path = base / "text_encoder" / "model.safetensors"
    prefix = "text_model."
    weights = {name.removeprefix(prefix): tensor for name, tensor in load_file(path).items()}
    save_file({prefix * with_prefix + name: tensor for name, tensor in weights.items()}, path)
    assert_same_weights(load_diffusion_models(str(base)).text_encoder, from_folders.text_encoder)


def spoil_width(base: Path) -> None:
    edit(base / "text_encoder" / "config.json", hidden_size=64)


def spoil_inpainting(base: Path) -> None:
    edit(base / "unet" / "config.json", in_channels=9)


def spoil_pipeline(base: Path) -> None:
    edit(base / "model_index.json", _class_name="StableDiffusionXLPipeline")


def spoil_prediction(base: Path) -> None:
    edit(base / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")


def spoil_vae(base: Path) -> None:
    edit(base / "vae" / "config.json", latent_channels=16)


def spoil_part(base: Path) -> None:
    shutil.rmtree(base / "text_encoder")


def spoil_tokenizer(base: Path) -> None:
    (base / "tokenizer" / "merges.txt").unlink()


def spoil_weights(base: Path) -> None:
    path = base / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def spoil_format(base: Path) -> None:
    path = base / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))


def spoil_tensor(base: Path) -> None:
    path = base / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["conv_out.bias"]
    save_file(weights, path)


def spoil_text_tensor(base: Path) -> None:
    path = base / "text_encoder" / "model.safetensors"
    weights = load_file(path)
    del weights[max(weights)]
    save_file(weights, path)


def spoil_shape(base: Path) -> None:
    path = base / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(path) | {"conv_out.bias": torch.zeros(7)}, path)


def spoil_configuration(base: Path) -> None:
    (base / "unet" / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_width, r"text encoder \(64 wide\) and UNet \(32\) do not make a pair"),
        (spoil_inpainting, r"takes 9 latent channels, not 4"),
        (spoil_pipeline, r"is Stable Diffusion XL: .*Stable Diffusion 1\.5 kind"),
        (spoil_prediction, r"predicts v_prediction, not epsilon"),
        (spoil_vae, r"VAE .*vae has 16 latent channels"),
        (spoil_part, r"lacks text_encoder/config\.json, text_encoder/\*\.safetensors"),
        (spoil_tokenizer, r"lacks tokenizer/vocab\.json"),
        (spoil_weights, r"unet/diffusion_pytorch_model\.safetensors is truncated"),
        (spoil_format, r"unet/\*\.safetensors \(pickled weights are not opened\)"),
        (spoil_tensor, r"unet lacks (1|some of its) tensors"),
        (spoil_text_tensor, r"text_encoder lacks 1 tensors"),
        (spoil_shape, r"unet does not fit"),
        (spoil_configuration, r"unet/config\.json cannot be read"),
    ],
)
def test_a_spoilt_base_model_is_refused_in_one_line(
    base: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(base)
    with pytest.raises(ModelsError, match=message) as caught:
        load_diffusion_models(str(base))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cross_attention_dim": 48}, "has text width 48, the base model 32"),
        ({"block_out_channels": [16, 32, 32, 48]}, r"has block widths \[16, 32, 32, 48\]"),
        ({"block_out_channels": [24, 32, 32, 40]}, "has first width 24, the base model 16"),
        ({"layers_per_block": 1}, "has layers per block 1, the base model 2"),
    ],
)
def test_a_controlnet_of_another_family_is_refused(
    tiny: tuple[Path, Path], controlnet: Path, changes: dict[str, object], message: str
) -> None:
    edit(controlnet / "config.json", **changes)
    with pytest.raises(ModelsError, match=message):
        load_diffusion_models(str(tiny[0]), controlnets=(str(controlnet),))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("control_model.input_blocks.0.0.weight", (24, 4, 3, 3), "first width 24"),
        (
            "control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
            (16, 48),
            "text width 48",
        ),
        ("control_model.time_embed.0.bias", (3,), "does not fit"),
        ("control_model.input_hint_block.0.weight", None, "is no ControlNet"),
        ("control_model.middle_block_out.0.bias", None, "lacks (1|some of its) tensors"),
    ],
)
def test_a_wrong_single_file_controlnet_is_refused(
    tiny: tuple[Path, Path],
    files: dict[str, Path],
    tmp_path: Path,
    name: str,
    shape: tuple[int, ...] | None,
    message: str,
) -> None:
    weights = load_file(files["controlnet"])
    assert name in weights
    if shape is None:
        del weights[name]
    else:
        weights[name] = torch.zeros(shape)
    save_file(weights, tmp_path / "wrong.safetensors")
    with pytest.raises(ModelsError, match=message):
        load_diffusion_models(str(tiny[0]), controlnets=(str(tmp_path / "wrong.safetensors"),))


_INPUT = "model.diffusion_model.input_blocks"


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (f"{_INPUT}.0.0.weight", (16, 9, 3, 3), r"\(16, 9, 32\).*says \(16, 4, 32\)"),
        (
            f"{_INPUT}.1.1.transformer_blocks.0.attn2.to_k.weight",
            (16, 2048),
            "name its own configuration as base_config",
        ),
        (f"{_INPUT}.0.0.weight", None, r"not laid out like a Stable Diffusion 1\.5 file"),
        (
            "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",
            None,
            r"not laid out like a Stable Diffusion 1\.5 file",
        ),
        ("conditioner.embedders.1.model.ln_final.weight", (4,), "is Stable Diffusion XL"),
        ("model.diffusion_model.out.2.bias", None, "lacks (1|some of its) tensors"),
        ("model.diffusion_model.out.2.bias", (7,), "does not fit"),
        ("first_stage_model.decoder.conv_out.bias", None, "lacks (1|some of its) tensors"),
        (
            "cond_stage_model.transformer.text_model.final_layer_norm.bias",
            None,
            "lacks (1|some of its) tensors",
        ),
    ],
)
def test_a_wrong_single_file_base_model_is_refused(
    tiny: tuple[Path, Path],
    files: dict[str, Path],
    tmp_path: Path,
    name: str,
    shape: tuple[int, ...] | None,
    message: str,
) -> None:
    weights = load_file(files["base"])
    assert name in weights or "XL" in message
    if shape is None:
        del weights[name]
    else:
        weights[name] = torch.zeros(shape)
    path = tmp_path / "wrong.safetensors"
    save_file(weights, path)
    with pytest.raises(ModelsError, match=message) as caught:
        load_diffusion_models(str(path), base_config=str(tiny[0]))
    assert "\n" not in str(caught.value)


def test_a_wrong_single_file_vae_is_refused(
    tiny: tuple[Path, Path], files: dict[str, Path], tmp_path: Path
) -> None:
    weights = load_file(files["vae"])
    del weights["decoder.conv_in.bias"]
    save_file(weights, tmp_path / "wrong.safetensors")
    with pytest.raises(ModelsError, match=r"lacks (1|some of its) tensors"):
        load_diffusion_models(str(tiny[0]), vae=str(tmp_path / "wrong.safetensors"))
    with pytest.raises(ModelsError):
        load_diffusion_models(str(tiny[0]), vae=str(files["controlnet"]))


@pytest.mark.parametrize("name", ["model.ckpt", "model.bin", "model.safetensors"])
def test_other_formats_are_never_opened(tiny: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    torch.save({"a": torch.zeros(1)}, path)
    remedy = "fetch it again" if name.endswith("safetensors") else "convert it to .safetensors"
    for source in ({"vae": str(path)}, {"controlnets": (str(path),)}):
        with pytest.raises(ModelsError, match=f"{name} .*{remedy}"):
            load_diffusion_models(str(tiny[0]), **source)  # type: ignore[arg-type]
    with pytest.raises(ModelsError, match=f"{name} .*{remedy}"):
        load_diffusion_models(str(path), base_config=str(tiny[0]))


def test_a_single_file_without_configuration_names_the_remedy(
    files: dict[str, Path], fake_cache: dict[str, Path], tiny: tuple[Path, Path]
) -> None:
    with pytest.raises(
        ModelsError, match=f"configuration {DEFAULT_BASE_CONFIG} is not on this machine.*pull"
    ):
        load_diffusion_models(str(files["base"]), offline=True)
    assert len(missing_models(str(files["base"]))) == 1
    fake_cache[DEFAULT_BASE_CONFIG] = tiny[0]
    load_diffusion_models(str(files["base"]), offline=True)
    assert missing_models(str(files["base"])) == []


def test_loading_leaves_the_terminal_alone(
    tiny: tuple[Path, Path], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    load_diffusion_models(str(tiny[0]), controlnets=(str(tiny[1]),), dtype=torch.float16)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_a_cached_hub_model_is_used_without_asking(
    tiny: tuple[Path, Path], fake_cache: dict[str, Path], from_folders: DiffusionModels
) -> None:
    fake_cache |= {"some/base": tiny[0], "some/vae": tiny[0] / "vae", "some/control": tiny[1]}
    models = load_diffusion_models("some/base", vae="some/vae", controlnets=("some/control",))
    assert_same_weights(models.vae, from_folders.vae)
    assert models.base_name == "some/base"
