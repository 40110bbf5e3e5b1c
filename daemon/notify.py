"""What the daemon tells systemd: ready, what it does, that it is alive (``sd_notify(3)``)."""

import os
import socket
from contextlib import suppress


class Notifier:
    """Speaks to the service manager that started this process; silent where there is none.

    It never raises and never blocks: a message that cannot be sent at once is lost. The manager's
    variables are taken out of the environment, so that no worker process speaks for the daemon.

    Attributes:
        watchdog_interval: seconds within which the manager wants to hear `watchdog`, again and
            again; None where it does not.
    """

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        microseconds = os.environ.pop("WATCHDOG_USEC", "")
        process = os.environ.pop("WATCHDOG_PID", str(os.getpid()))
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_interval: float | None = None
        if address and microseconds.isdecimal() and process == str(os.getpid()):
            self.watchdog_interval = int(microseconds) / 1e6 or None

    def ready(self) -> None:
        """Start-up is complete."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """What ``systemctl status`` shows, in one line."""
        self._send("STATUS=" + " ".join(text.split()))

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Starting or stopping goes on for so long at least, whatever the unit's limit is."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def watchdog(self) -> None:
        """All is well."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self._address:
            kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as ours:
                ours.sendto(message.encode(errors="backslashreplace"), self._address)
