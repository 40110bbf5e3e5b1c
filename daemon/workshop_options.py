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
        segments: propagated by cores at a time; 0: as many as there are cores.
        propagation_device: who propagates: "auto", "cpu" or "gpu".
        propagation_memory: bytes of a GPU's memory that it may take.
    """

    control_device: str
    device_threads: int
    space_timeout: float
    attempts: int = 3
    segments: int = 0
    propagation_device: str = "auto"
    propagation_memory: int = 4 << 30
