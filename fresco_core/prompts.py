"""Prompts: what is added to a user's words, and how they become embeddings.

Shapes: N frames, L = 77 tokens, D channels of the text encoder.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

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

# Characters that are looked at: the encoder's 77 tokens are far shorter, and a prompt of a megabyte
# takes seconds.
LOOKED_AT = 1 << 14


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


def cut_off(tokenizer: Any, text: str) -> str:
    """The end of a prompt that the text encoder will not see; empty where all of it fits."""
    ids = tokenizer(text[:LOOKED_AT], truncation=False, verbose=False).input_ids
    limit = tokenizer.model_max_length
    if len(ids) <= limit:
        return ""
    return str(tokenizer.decode(ids[limit - 1 : -1])).strip() + text[LOOKED_AT:]


def encode_prompts(
    tokenizer: Any,
    text_encoder: Any,
    positive: Sequence[str],
    negative: Sequence[str],
    *,
    weights: bool = True,
) -> Tensor:
    """Embeddings for classifier-free guidance: those of all negative prompts, then the positive.

    Args:
        positive, negative: one text a frame; padded and cut to the encoder's length.

    Returns:
        (2N,L,D), last hidden state of the text encoder.
    """
    texts = list(dict.fromkeys([*negative, *positive]))
    tokens = tokenizer(
        [text[:LOOKED_AT] for text in texts],
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    embeddings = text_encoder(tokens.to(text_encoder.device))[0]
    rows = torch.tensor([texts.index(text) for text in [*negative, *positive]])
    return embeddings[rows.to(embeddings.device)]
