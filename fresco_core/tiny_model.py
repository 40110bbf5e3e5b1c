"""A small random-weight model laid out like Stable Diffusion 1.5.

It loads exactly as real weights do and takes seconds on a CPU, so the demo and the tests run the
whole method without a download. Its pictures mean nothing.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from fresco_core.tiny_fit import NORM_GROUPS, fit

_WIDTHS = (16, 32, 32, 40)
_TEXT_WIDTH = 32
_TEXT_LENGTH = 77
_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORDS = (
    "car",
    "city",
    "dark",
    "day",
    "dog",
    "light",
    "night",
    "photo",
    "rain",
    "road",
    "snow",
    "sun",
)
# Last layer of each residual branch; smaller weights there keep deep random networks tame.
_BRANCH_ENDS = ("conv2", "to_out.0", "ff.net.2", "proj_out", "fc2", "out_proj")
_BRANCH_GAIN = 0.5
_TEXT_GAIN = 6.0


def make_tiny_model(
    folder: Path | str, *, seed: int = 0, fitted: bool = False
) -> tuple[Path, Path]:
    """Write a random-weight base model and a matching ControlNet in diffusers format.

    Args:
        folder: where to write; the base model goes to ``folder/sd``, the ControlNet to
            ``folder/controlnet``. Existing files there are overwritten.
        seed: the same seed gives the same weights.
        fitted: take some seconds more so that results resemble their input, see
            :mod:`fresco_core.tiny_fit`.

    Returns:
        The two folders. About 6 MB together, float32.
    """
    base, control = Path(folder) / "sd", Path(folder) / "controlnet"
    vocabulary, merges = _byte_pairs()
    _write_tokenizer(base / "tokenizer", vocabulary, merges)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet, vae, text_encoder = _unet(), _vae(), _text_encoder(vocabulary)
        if fitted:
            fit(unet, vae, _scheduler().alphas_cumprod)
        controlnet = _controlnet(unet)
    parts = {"unet": unet, "vae": vae, "text_encoder": text_encoder}
    for name, part in parts.items():
        part.save_pretrained(base / name)
    controlnet.save_pretrained(control)
    _scheduler().save_pretrained(base / "scheduler")
    _write_json(
        base / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "DDPMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    return base, control


def _unet() -> UNet2DConditionModel:
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=_WIDTHS,
        norm_num_groups=NORM_GROUPS,
        cross_attention_dim=_TEXT_WIDTH,
        attention_head_dim=8,  # in SD 1.5's configuration this is the number of heads
    )
    _damp(unet)
    for name, layer in unet.named_modules():
        if name.endswith("attn2.to_v"):  # otherwise random attention averages a text's words away
            layer.weight.data.mul_(_TEXT_GAIN)
    return unet


def _controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    controlnet = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(8, 16, 24, 32), load_weights_from_unet=True
    )
    # Zero convolutions would make the ControlNet's effect invisible to every test.
    zero_convolutions = [
        *controlnet.controlnet_down_blocks,
        controlnet.controlnet_mid_block,
        controlnet.controlnet_cond_embedding.conv_out,
    ]
    for convolution in zero_convolutions:
        nn.init.normal_(convolution.weight, std=0.1 / convolution.in_channels**0.5)
        nn.init.normal_(convolution.bias, std=0.02)
    return controlnet


def _vae() -> AutoencoderKL:
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 16, 32, 32),
        layers_per_block=1,
        norm_num_groups=NORM_GROUPS,
        sample_size=128,
    )
    _damp(vae)
    return vae


def _text_encoder(vocabulary: dict[str, int]) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=_TEXT_WIDTH,
        intermediate_size=64,
        projection_dim=_TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=_TEXT_LENGTH,
        bos_token_id=vocabulary[_START],
        eos_token_id=vocabulary[_END],
    )
    encoder = CLIPTextModel(config)
    # Words must outweigh positions, or all texts look alike to the UNet.
    for name, embedding in encoder.named_parameters():
        if "token_embedding" in name:
            nn.init.normal_(embedding, std=1.0)
    return encoder


def _scheduler() -> DDPMScheduler:
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        timestep_spacing="leading",
    )


def _damp(model: nn.Module) -> None:
    with torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith(_BRANCH_ENDS):
                for parameter in module.parameters():
                    parameter.mul_(_BRANCH_GAIN)


def _byte_pairs() -> tuple[dict[str, int], list[str]]:
    """Vocabulary and merges of a byte-level tokenizer that knows every byte and a few words."""
    # Bytes without a visible character of their own are written as characters from 256 on.
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(byte) for byte in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    entries = symbols + [f"{symbol}</w>" for symbol in symbols]
    merges: list[str] = []
    for word in _WORDS:
        joined, *rest = [*word[:-1], f"{word[-1]}</w>"]
        for piece in rest:
            merges.append(f"{joined} {piece}")
            joined += piece
            entries.append(joined)
    entries = [*dict.fromkeys(entries), _START, _END]
    return {entry: number for number, entry in enumerate(entries)}, list(dict.fromkeys(merges))


def _write_tokenizer(folder: Path, vocabulary: dict[str, int], merges: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    special = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
    _write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "CLIPTokenizer", "model_max_length": _TEXT_LENGTH, **special},
    )
    _write_json(folder / "special_tokens_map.json", special)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
