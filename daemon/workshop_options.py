"""What a workshop is told of how it is to work."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WorkshopOptions:
    """How the workshop is used.

    Attributes:
        control_device: who draws control maps: "auto", "cpu" or "gpu".
        device_threads: cores that a device of the CPU takes.
        space_timeout: seconds to wait for space on a full disk.
        attempts: a clip fails when its devices died so often in vain.
        segments: propagated at a time; 0: as many as there are cores.
    """

    control_device: str
    device_threads: int
    space_timeout: float
    attempts: int = 3
    segments: int = 0
