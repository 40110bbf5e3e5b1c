"""Prompts: what is added to a user's words, and how they become embeddings.

Shapes: N frames, L tokens (77, or a multiple of it), D channels of the text encoder.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fresco_core.embeddings import expand
from fresco_core.prompt_weights import Fragment, read_weights

# The phrases recommended on the model card of SG161222/Realistic_Vision_V2.0 …
REALISTIC_ADDED = (
    ", RAW photo, subject, (high detailed skin:1.2), 8k uhd, dslr, soft lighting, high quality, "
    "film grain, Fujifilm XT3, "
)
REALISTIC_NEGATIVE = (
    "(deformed iris, deformed pupils, semi-realistic, cgi, 3d, render, sketch, cartoon, drawing, "
    "anime, mutated hands and fingers:1.4), (deformed, distorted, disfigured:1.3), poorly drawn, "
    "bad anatomy, wrong anatomy, extra limb, missing limb, floating limbs, disconnected limbs, "
    "mutation, mutated, ugly, disgusting, amputation"
)
# … and the defaults of the ControlNet demos.
ADDED = ", best quality, extremely detailed, "
NEGATIVE = (
    "longbody, lowres, bad anatomy, bad hands, missing finger, extra digit, fewer digits, "
    "cropped, worst quality, low quality"
)

# Characters that are looked at: what the encoder sees is far shorter, and a prompt of a megabyte
# takes seconds.
LOOKED_AT = 1 << 14
# Batches whose texts are kept, some 200 KB a text.
KEPT = 8
# Of a prompt with weights: eight times what the text encoder sees at once.
MOST_TOKENS = 600


def default_prompts(base_name: str) -> tuple[str, str]:
    """Added prompt and negative prompt that suit a base model, by its name or path."""
    if re.search("[Rr]ealistic", base_name):
        return REALISTIC_ADDED, REALISTIC_NEGATIVE
    return ADDED, NEGATIVE


def effective_prompts(
    positive: str,
    negative: str | None,
    base_name: str,
    *,
    added: str | None = None,
    default_negative: str | None = None,
) -> tuple[str, str]:
    """The positive and negative text that the text encoder gets.

    Args:
        positive, negative: the user's own; negative None: there is none.
        base_name: of the base model.
        added: goes after the positive prompt; None: what suits the base model.
        default_negative: where there is no negative prompt; None: what suits the base model.
    """
    suits_added, suits_negative = default_prompts(base_name)
    if negative is None:
        negative = suits_negative if default_negative is None else default_negative
    return positive + (suits_added if added is None else added), negative


def cut_off(tokenizer: Any, text: str, *, weights: bool = True) -> str:
    """The end of a prompt that the text encoder will not see; empty where all of it is seen.

    Args:
        tokenizer: of the base model.
        text: the prompt.
        weights: as `PromptEncoder` has it.
    """
    beyond, text = text[LOOKED_AT:], expand(tokenizer, text[:LOOKED_AT])
    if weights:
        return _within_bounds(tokenizer, text)[1] + beyond
    ids = _token_ids(tokenizer, text)
    room = tokenizer.model_max_length - 2
    return _text(tokenizer, ids[room:]) + beyond


class PromptEncoder:
    """Embeddings of prompts; those of the last batches are kept, a clip has few texts."""

    def __init__(self, tokenizer: Any, text_encoder: Any) -> None:
        """Take tokenizer and text encoder of a base model."""
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._encoded = lru_cache(KEPT)(self._encode)

    def __call__(
        self, positive: Sequence[str], negative: Sequence[str], *, weights: bool = True
    ) -> Tensor:
        """Embeddings for classifier-free guidance: of all negative prompts, then of the positive.

        Args:
            positive, negative: one text a frame.
            weights: brackets weigh words, see `fresco_core.prompt_weights`, and texts beyond the
                encoder's 77 tokens are encoded in parts, `MOST_TOKENS` at most; all texts get as
                many tokens as the longest. False: brackets are text, and what is beyond 77 tokens
                is cut off, as published.

        Returns:
            (2N,L,D), last hidden state of the text encoder.
        """
        texts = tuple(dict.fromkeys([*negative, *positive]))
        embeddings = self._encoded(texts, weights)
        return torch.stack([embeddings[texts.index(text)] for text in [*negative, *positive]])

    @torch.no_grad()
    def _encode(self, texts: tuple[str, ...], weights: bool) -> Tensor:
        """(T,L,D), in one batch: what else is in it shows in the last bits."""
        expanded = [expand(self._tokenizer, text[:LOOKED_AT]) for text in texts]
        encode = _encode_weighted if weights else _encode_plain
        return encode(self._tokenizer, self._text_encoder, expanded)


def _encode_plain(tokenizer: Any, text_encoder: Any, texts: Sequence[str]) -> Tensor:
    tokens = tokenizer(
        list(texts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return text_encoder(tokens.to(text_encoder.device))[0]


def _encode_weighted(tokenizer: Any, text_encoder: Any, texts: Sequence[str]) -> Tensor:
    """Embeddings (T,L,D) of texts whose brackets weigh words, L a multiple of 77."""
    room = tokenizer.model_max_length - 2
    fragments = [_within_bounds(tokenizer, text)[0] for text in texts]
    plain: dict[int, str] = {}
    for i, parts in enumerate(fragments):
        text = "".join(part.text for part in parts)
        if all(part.weight == 1 for part in parts) and len(_token_ids(tokenizer, text)) <= room:
            plain[i] = text
    found: dict[int, Tensor] = {}
    if len(plain) < len(texts):
        found = {
            i: _weigh(tokenizer, text_encoder, parts)
            for i, parts in enumerate(fragments)
            if i not in plain
        }
    # The same numbers as without weights; the empty text is what fills up shorter prompts.
    *encoded, empty_LD = _encode_plain(tokenizer, text_encoder, [*plain.values(), ""])
    found |= dict(zip(plain, encoded, strict=True))
    longest = max(len(part) for part in found.values())
    return torch.stack(
        [
            torch.cat([found[i], *[empty_LD] * ((longest - len(found[i])) // len(empty_LD))])
            for i in range(len(texts))
        ]
    )


def _weigh(tokenizer: Any, text_encoder: Any, fragments: Sequence[Fragment]) -> Tensor:
    """Embedding (L,D) of weighted text of any length."""
    # Costs seconds: most prompts have no weights.
    from compel.embeddings_provider import EmbeddingsProvider, SplitLongTextMode

    provider = EmbeddingsProvider(
        _Silent(tokenizer),
        text_encoder,
        truncate=False,
        device=text_encoder.device,
        split_long_text_mode=SplitLongTextMode.PHRASES,
    )
    embedding_1LD = provider.get_embeddings_for_weighted_prompt_fragments(
        [[fragment.text for fragment in fragments]],
        [[fragment.weight for fragment in fragments]],
        device=text_encoder.device,
    )
    return embedding_1LD[0].to(text_encoder.dtype)


class _Silent:
    """A tokenizer that does not complain of long texts: they are meant to be."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, texts: Any, **options: Any) -> Any:
        return self._tokenizer(texts, verbose=False, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def _within_bounds(tokenizer: Any, text: str) -> tuple[tuple[Fragment, ...], str]:
    """The fragments of a text that are encoded, and the text that is too much."""
    kept: list[Fragment] = []
    room = MOST_TOKENS
    for mark in (tokenizer.bos_token, tokenizer.eos_token):  # each part gets its own
        text = text.replace(mark, " ")
    fragments = read_weights(text)
    for i, fragment in enumerate(fragments):
        ids = _token_ids(tokenizer, fragment.text)
        if len(ids) > room:
            if room:
                kept.append(Fragment(_text(tokenizer, ids[:room]), fragment.weight))
            rest = "".join(other.text for other in fragments[i + 1 :])
            return tuple(kept), _text(tokenizer, ids[room:]) + rest
        room -= len(ids)
        if ids:  # nothing but blanks: nothing to weigh
            kept.append(fragment)
    return tuple(kept), ""


def _token_ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, truncation=False, verbose=False).input_ids
    return ids[1:-1]


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(ids)).strip() if ids else ""
