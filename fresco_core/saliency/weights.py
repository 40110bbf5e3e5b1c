"""Which weights a saliency model has and where they lie (needs no torch)."""

from fresco_core.network_choice import NetworkFamily
from fresco_core.network_files import EGNET, checkpoints_folder

EGNET_FILE = "epoch_resnet.pth"

SALIENCY = NetworkFamily(
    "saliency", {"egnet": EGNET}, "motion", lambda _: checkpoints_folder() / EGNET_FILE
)
