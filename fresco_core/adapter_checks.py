"""Whether LoRAs and embeddings fit a base model, told from file headers. Needs no torch."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fresco_core.architecture import SD15
from fresco_core.checkpoint import Shapes, file_names, tensor_shapes, weight_files
from fresco_core.errors import ModelsError
from fresco_core.lora_layers import TEXT_ENCODER, UNET, check_layers, layer_name, lora_layers

MOST_VECTORS = 75  # what the text encoder sees at once

_ELSEWHERE = re.compile(
    r"lora_te[23]_|text_encoder_[23]\.|transformer\.|lora_transformer|lora_unet_(double|single|joint)|"
    r"lora_unet_input_blocks_[78]_1_|diffusion_model\.(double|single|joint)"
)
_OTHER_METHODS = re.compile(
    r"hada_w|lokr_w|oft_|\.boft|glora|ia3|lora_mid|dora_scale|\.diff(_b)?$|\.set_weight"
)


def check_lora(path: Path, unet: dict[str, Any], base: dict[str, Shapes] | None) -> None:
    """Refuse a LoRA that was made for another architecture, or in a form that is not known.

    Args:
        path: ``.safetensors`` file.
        unet: configuration of the base model's UNet.
        base: shapes of the base model's weights as `base_layers` gives them, or None where they are
            not known without loading it.

    Raises:
        ModelsError: with what it was made for.
    """
    shapes = tensor_shapes(path)
    if foreign := next((name for name in shapes if _ELSEWHERE.search(name)), None):
        raise ModelsError(
            f"LoRA {path} is for another architecture (it has {foreign}, as Stable Diffusion XL "
            f"and later have): {SD15}"
        )
    if other := next((name for name in shapes if _OTHER_METHODS.search(name)), None):
        raise ModelsError(
            f"LoRA {path} has {other}, of a method that frescod does not know: it takes LoRA and "
            "LoCon, choose one of those"
        )
    layers = lora_layers(shapes)
    if not layers:
        raise ModelsError(f"{path} is no LoRA: it has no lora_down or lora_A tensors")
    text_width, first_width = unet["cross_attention_dim"], unet["block_out_channels"][0]
    for what, expected, part, pattern in (
        ("text width", text_width, UNET, r"_attn2_to_[kv]"),
        ("text encoder width", text_width, TEXT_ENCODER, r"_self_attn_[qkv]_proj"),
        ("first width", first_width, UNET, r"down_blocks_0_.*_attn1_to_[qkv]"),
    ):
        for layer in layers:
            width = (*shapes[layer.down], None, None)[1]
            if layer.part == part and re.search(pattern, layer.name) and width != expected:
                raise ModelsError(
                    f"LoRA {path} has {what} {width}, the base model {expected}: choose one made "
                    "for this base model"
                )
    if base is not None:
        check_layers(path, shapes, base)


def base_layers(folder: Path) -> dict[str, Shapes]:
    """Shapes of a base model's weights, by part and `layer_name`, from a model folder."""
    names = file_names(folder)
    return {
        part: {
            layer_name(name): shape
            for file in weight_files(names, part)[0]
            if file.endswith(".safetensors")
            for name, shape in tensor_shapes(folder / file).items()
            if name.endswith(".weight")
        }
        for part in (UNET, TEXT_ENCODER)
    }


def check_embeddings(embeddings: Sequence[tuple[Path, str | None]], unet: dict[str, Any]) -> None:
    """Refuse embeddings for another text encoder, and two for one word.

    What is in a pickle is looked at when it is loaded.
    """
    words: list[tuple[Path, str]] = []
    for path, given in embeddings:
        named = None
        if path.suffix == ".safetensors":
            shapes = tensor_shapes(path)
            refuse_embedding(path, tuple(shapes))
            ((name, shape),) = shapes.items()
            check_embedding_width(path, shape, unet["cross_attention_dim"])
            named = own_word(name)
        if given or path.suffix == ".safetensors":
            words.append((path, given or named or path.stem))
    check_words(words)


def own_word(name: object) -> str | None:
    """The word that the name of an embedding's tensor is, or None where it is everyone's."""
    return None if name in ("*", "emb_params") else str(name)


def check_words(words: Sequence[tuple[Path, str]]) -> list[str]:
    """The words of embeddings as they are looked for in prompts.

    Args:
        words: file of each embedding, and its word.

    Raises:
        ModelsError: one can be none in a prompt, or two are the same.
    """
    found: list[str] = []
    for path, text in words:
        word = text.casefold()
        if re.search(r"[\s()\[\]:\\]", word):
            raise ModelsError(
                f"embedding {path}: {word!r} has characters that no word in a prompt can have: "
                f"name it otherwise, as word={path.name}"
            )
        if word in found:
            raise ModelsError(
                f"embedding {path}: another has the word {word!r}: name it otherwise, as "
                f"word={path.name}"
            )
        found.append(word)
    return found


def refuse_embedding(path: Path, names: Sequence[object]) -> None:
    """Refuse what is no embedding, told from its tensors' names."""
    if "clip_g" in names:
        raise ModelsError(f"embedding {path} is for Stable Diffusion XL: {SD15}")
    if len(names) != 1:
        raise ModelsError(f"{path} is no embedding: it has {len(names)} tensors, not one")


def check_embedding_width(path: Path, shape: Sequence[int], width: int) -> None:
    """Refuse vectors of another width than the text encoder's, and too many."""
    if not 1 <= len(shape) <= 2 or shape[-1] != width:
        raise ModelsError(
            f"embedding {path} has vectors of shape {tuple(shape)}, the base model's text encoder "
            f"is {width} wide: choose one made for this base model"
        )
    if len(shape) == 2 and not 1 <= shape[0] <= MOST_VECTORS:
        raise ModelsError(
            f"embedding {path} has {shape[0]} vectors: 1 to {MOST_VECTORS} can be used"
        )
