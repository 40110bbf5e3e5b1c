"""Which weights a flow model has and where they lie (needs no torch)."""

from pathlib import Path

from fresco_core.flow.raft_weights import cached_raft_weights
from fresco_core.network_choice import NetworkFamily
from fresco_core.network_files import GMFLOW, RAFT, checkpoints_folder

GMFLOW_FILE = "gmflow_sintel-0c07dcb3.pth"


def usual_flow_weights(model: str) -> Path:
    """Where the weights of ``"gmflow"`` or ``"raft"`` usually lie, present or not."""
    return cached_raft_weights() if model == "raft" else checkpoints_folder() / GMFLOW_FILE


FLOW = NetworkFamily(
    "flow", {"gmflow": GMFLOW, "raft": RAFT}, "dis", usual_flow_weights, pulled=("raft",)
)
