"""What of a clip's prompt does not work as it was probably meant."""

from collections.abc import Iterator

from fresco_core.embeddings import unused_words
from fresco_core.prompt_weights import weight_warnings
from fresco_core.prompts import LOOKED_AT, cut_off, effective_prompts
from fresco_core.translator import FrescoTranslator
from io_pipeline.prompt import Prompt

# Characters of a prompt that are quoted where it was cut.
QUOTED = 300


def prompt_warnings(translator: FrescoTranslator, *prompts: Prompt) -> tuple[str, ...]:
    """What of prompts the text encoder will not see."""
    found = (warning for prompt in prompts for warning in _cut_off(translator, prompt))
    return tuple(dict.fromkeys(found))


def misread_weights(translator: FrescoTranslator, prompt: Prompt) -> tuple[str, ...]:
    """Brackets of a clip's prompt that do not weigh words as they were probably meant to."""
    if not translator.options.prompt_weights:
        return ()
    found = (warning for text in _texts(translator, prompt) for warning in weight_warnings(text))
    return tuple(f"prompt: {warning}" for warning in dict.fromkeys(found))


def idle_words(translator: FrescoTranslator, prompt: Prompt) -> list[str]:
    """Words of embeddings that a clip's prompt does not use at any time."""
    return unused_words(translator.models.tokenizer, *_texts(translator, prompt))


def _texts(translator: FrescoTranslator, prompt: Prompt) -> list[str]:
    """All texts of a user's that a clip is translated by."""
    options = translator.options
    negative = options.negative_prompt if prompt.negative is None else prompt.negative
    timed = (text.text for text in prompt.timed)
    texts = (prompt.positive, *timed, options.added_prompt, negative)
    return [text[:LOOKED_AT] for text in texts if text]


def _cut_off(translator: FrescoTranslator, prompt: Prompt) -> Iterator[str]:
    models, options = translator.models, translator.options
    positive, negative = effective_prompts(
        prompt.positive,
        prompt.negative,
        models.base_name,
        added=options.added_prompt,
        default_negative=options.negative_prompt,
    )
    texts = [("positive", positive)]
    # The published negative prompts are as long as they are: nobody needs to be told at each clip.
    if prompt.negative is not None or options.negative_prompt is not None:
        texts.append(("negative", negative))
    for kind, text in texts:
        if rest := cut_off(models.tokenizer, text, weights=options.prompt_weights):
            yield f"{kind} prompt is too long for the text encoder, cut off: {_beginning(rest)}"


def _beginning(text: str) -> str:
    if len(text) <= QUOTED:
        return text
    return f"{text[:QUOTED]}… ({len(text)} characters)"
