"""The prompt of a command line or a job file, kept as a file: a job's prompt outlasts its run."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from daemon.places import STATE
from daemon.printable import printable
from daemon.state_folder import make
from fresco_core.errors import ConfigError

FOLDER = "prompts"


@dataclass(frozen=True)
class KeptPrompt:
    """A prompt, and the file that jobs name in its place.

    Attributes:
        text: as a prompt file has it; what is not UTF-8 as surrogates.
        file: below the output folder's own folder, named by its content: the same prompt is the
            same file in every run.
    """

    text: str
    file: Path

    @classmethod
    def of(cls, text: str, output: Path) -> "KeptPrompt":
        """The prompt's place; nothing is written yet."""
        name = hashlib.sha256(_bytes(text)).hexdigest()[:12]
        return cls(text, output.absolute() / STATE / FOLDER / f"{name}.txt")

    def write(self) -> None:
        """Have it there, whole.

        Raises:
            ConfigError: it cannot be written; a link leads elsewhere.
        """
        folder = self.file.parent
        part = self.file.with_suffix(".part")
        try:
            for each in (folder.parent, folder):
                if each.is_symlink():
                    raise ConfigError(
                        f"{printable(each)}: is a symbolic link: remove it, or put the prompt into "
                        "a file beside the clip"
                    )
                make(each)
            part.unlink(missing_ok=True)
            with part.open("xb") as file:
                file.write(_bytes(self.text))
            os.replace(part, self.file)
        except OSError as error:
            raise ConfigError(
                f"{printable(self.file)}: cannot be written ({error.strerror}): correct the "
                "permissions, or put the prompt into a file beside the clip"
            ) from error


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
