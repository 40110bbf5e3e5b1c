"""Where the daemon's things are, as the settings say."""

from dataclasses import dataclass
from pathlib import Path

from daemon.printable import printable
from daemon.settings import Settings
from fresco_core.errors import ConfigError

STORE = "jobs.sqlite"
SOCKET = "control.sock"
STATE = ".frescod"


@dataclass(frozen=True)
class Places:
    """Absolute paths.

    Attributes:
        inbox: folder where clips are dropped.
        output: folder of the results.
        state: folder of the store.
        socket: that the daemon is controlled by.
    """

    inbox: Path
    output: Path
    state: Path
    socket: Path

    @classmethod
    def of(cls, settings: Settings) -> "Places":
        """The places that the settings name; relative ones are below the current folder."""
        inbox = Path(settings.inbox.folder).absolute()
        output = Path(settings.output.folder).absolute()
        state = Path(settings.service.state or output / STATE).absolute()
        socket = Path(settings.service.socket or state / SOCKET).absolute()
        return cls(inbox, output, state, socket)

    def check(self, recursive: bool) -> None:
        """See that results are not taken for clips; ``recursive``: nor those in sub-folders.

        Raises:
            ConfigError: they would be; the state folder in the output folder is a link.
        """
        if self.state == self.output / STATE and self.state.is_symlink():
            raise ConfigError(
                f"{printable(self.state)}: is a symbolic link: remove it, or set service.state to "
                "the folder that is meant"
            )
        inbox = self.inbox.resolve()
        for key, path in (("output.folder", self.output), ("service.state", self.state)):
            folder = path.resolve()
            if folder == inbox or (recursive and inbox in folder.parents):
                raise ConfigError(
                    f"{key}: {printable(path)} lies in the inbox, whose clips it would be taken "
                    "for: name a folder outside it"
                )
        if self.output.resolve() in inbox.parents:
            raise ConfigError(
                f"inbox.folder: {printable(self.inbox)} lies in the output folder, where a result "
                "may have its name: name a folder outside it"
            )

    @property
    def store(self) -> Path:
        """The file of the store."""
        return self.state / STORE
