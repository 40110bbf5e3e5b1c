"""File names for terminal and log."""

from pathlib import Path


def printable(name: str | Path) -> str:
    """A file name as one line, whatever bytes it is made of."""
    text = str(name)
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )
