"""Where the daemon's things are, as the settings say."""

from dataclasses import dataclass
from pathlib import Path

from daemon.settings import Settings

STORE = "jobs.sqlite"
SOCKET = "control.sock"


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
        state = Path(settings.service.state or output / ".frescod").absolute()
        socket = Path(settings.service.socket or state / SOCKET).absolute()
        return cls(inbox, output, state, socket)

    @property
    def store(self) -> Path:
        """The file of the store."""
        return self.state / STORE
