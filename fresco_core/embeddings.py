"""Textual inversion: learned vectors that stand in a prompt for a word.

Source: An Image is Worth One Word (Gal et al., ICLR 2023).

Shapes: V vectors of an embedding, D channels of the text encoder.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fresco_core.adapter_checks import (
    MOST_VECTORS,
    check_embedding_width,
    check_words,
    own_word,
    refuse_embedding,
)
from fresco_core.errors import ModelsError

# What an embedding's vectors are called among the tokenizer's tokens: nothing that stands in
# prompts or vocabularies, so that a word may be one that the tokenizer knows, or part of one.
_TOKEN = re.compile(r"<(.+)#(\d+)>")


def add_embeddings(
    tokenizer: Any, text_encoder: Any, embeddings: Sequence[tuple[Path, str | None]]
) -> None:
    """Teach a tokenizer and a text encoder further words.

    Args:
        tokenizer, text_encoder: changed in place.
        embeddings: file of each, and its word; None: the one that the file names, or else the
            file's own name.

    Raises:
        ModelsError: a file is no embedding, is for another text encoder, or two have one word.
    """
    words: list[tuple[Path, str]] = []
    vectors: list[Tensor] = []
    for path, given in embeddings:
        named, vectors_VD = read_embedding(path)
        check_embedding_width(path, tuple(vectors_VD.shape), text_encoder.config.hidden_size)
        words.append((path, given or named or path.stem))
        vectors.append(vectors_VD)
    if not words:
        return
    tokens = {
        f"<{word}#{i}>": vector_D
        for word, vectors_VD in zip(check_words(words), vectors, strict=True)
        for i, vector_D in enumerate(vectors_VD)
    }
    tokenizer.add_tokens(list(tokens))
    ids = tokenizer.convert_tokens_to_ids(list(tokens))
    old = text_encoder.get_input_embeddings()
    rows, width = old.weight.shape
    new = nn.Embedding(max(rows, max(ids) + 1), width, dtype=old.weight.dtype)
    with torch.no_grad():
        new.weight[:rows] = old.weight
        new.weight[torch.tensor(ids)] = torch.stack(list(tokens.values())).to(new.weight)
    text_encoder.set_input_embeddings(new.to(old.weight.device))
    text_encoder.config.vocab_size = len(new.weight)


def expand(tokenizer: Any, text: str) -> str:
    """A prompt with each embedding's word replaced by the tokens of its vectors."""
    vectors = _vectors(tokenizer)
    if not vectors:
        return text
    # Some letters match without their case and are others all the same: İ and i.
    return _any_of(vectors).sub(
        lambda found: " ".join(vectors.get(found[0].casefold(), (found[0],))), text
    )


def unused_words(tokenizer: Any, *texts: str) -> list[str]:
    """The words of embeddings that are in none of some prompts."""
    words = _vectors(tokenizer)
    if not words:
        return []
    used = {found.casefold() for text in texts for found in _any_of(words).findall(text)}
    return [word for word in words if word not in used]


def _vectors(tokenizer: Any) -> dict[str, list[str]]:
    """Tokens of each word, in order."""
    vectors: dict[str, list[str]] = {}
    for token in sorted(tokenizer.get_added_vocab(), key=len):
        if match := _TOKEN.fullmatch(token):
            vectors.setdefault(match[1], []).append(token)
    return vectors


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    longest_first = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{longest_first})(?!\w)", re.IGNORECASE)


def read_embedding(path: Path) -> tuple[str | None, Tensor]:
    """The word that a file names, if any, and its vectors (V,D), float32.

    Files of the published formats: ``.safetensors``, and ``.pt`` or ``.bin`` as far as they hold
    nothing but tensors and text.
    """
    content: Any
    if path.suffix == ".safetensors":
        content = load_file(path)
    else:
        try:
            with torch.serialization.safe_globals([nn.ParameterDict]):
                content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ModelsError(
                f"embedding {path} is damaged or holds more than tensors and is not opened: get "
                "it as .safetensors"
            ) from error
    if isinstance(content, dict) and "string_to_param" in content:
        content = dict(content["string_to_param"])
    if not isinstance(content, dict):
        refuse_embedding(path, ())
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    refuse_embedding(path, tuple(tensors))
    ((name, vectors),) = tensors.items()
    vectors_VD = vectors.detach().float()
    if vectors_VD.dim() == 1:
        vectors_VD = vectors_VD[None]
    return own_word(name), vectors_VD[: MOST_VECTORS + 1]
