"""Which weights a flow model has and where they lie (needs no torch)."""

from dataclasses import dataclass
from pathlib import Path

from fresco_core.errors import ConfigError, ModelsError
from fresco_core.flow.raft_weights import cached_raft_weights
from fresco_core.hub import PULL
from fresco_core.network_files import (
    GMFLOW,
    RAFT,
    checkpoints_folder,
    network_in,
    require_network,
)

GMFLOW_FILE = "gmflow_sintel-0c07dcb3.pth"

_NETWORKS = {"gmflow": GMFLOW, "raft": RAFT}  # the best first
_OTHERS = {"gmflow": "raft or dis", "raft": "dis"}


@dataclass(frozen=True)
class FlowChoice:
    """A flow model for `fresco_core.flow.load_flow`.

    Attributes:
        model: ``"gmflow"``, ``"raft"`` or ``"dis"``.
        weights: its file; None where the model has none.
        why: for the user, where the model was chosen for them; else empty.
    """

    model: str
    weights: Path | None
    why: str = ""


def usual_flow_weights(model: str) -> Path:
    """Where the weights of ``"gmflow"`` or ``"raft"`` usually lie, present or not."""
    return cached_raft_weights() if model == "raft" else checkpoints_folder() / GMFLOW_FILE


def choose_flow(model: str, weights: str | None = None) -> FlowChoice:
    """The flow model that a setting means.

    ``"auto"`` is what ``weights`` holds; without it, GMFlow where its weights lie in the usual
    place, else RAFT where its do, else DIS.

    Args:
        model: ``"auto"``, ``"gmflow"``, ``"raft"`` or ``"dis"``.
        weights: file; None or empty for the usual one.

    Raises:
        ConfigError: unknown model, or weights given to a model that has none.
        ModelsError: weights are missing, damaged or of another network.
    """
    if model != "auto":
        return FlowChoice(model, find_flow_weights(model, weights))
    if weights:
        path = Path(weights).expanduser()
        _require_file(path, "correct the path")
        held = network_in(path)
        for known, title in _NETWORKS.items():
            if held == title:
                return FlowChoice(known, path, f"{path} holds {title}")
        raise ModelsError(
            f"{path} holds {held or 'an unknown network'}, not {GMFLOW} or {RAFT}: name another "
            "file, or choose flow model dis"
        )
    for known in _NETWORKS:
        if (path := usual_flow_weights(known)).is_file():
            return FlowChoice(known, find_flow_weights(known), f"its weights are there ({path})")
    places = ", ".join(str(usual_flow_weights(known)) for known in _NETWORKS)
    return FlowChoice("dis", None, f"no weights of a better one are there ({places})")


def find_flow_weights(model: str, weights: str | None = None) -> Path | None:
    """The file that loading a flow model would read; None for DIS, which has no weights.

    Only the file's header is read: what is damaged behind it shows when it is loaded.

    Args:
        model: ``"gmflow"``, ``"raft"`` or ``"dis"``.
        weights: file; None or empty for the usual one.

    Raises:
        ConfigError: unknown model, or weights given to DIS.
        ModelsError: the file is missing, damaged or holds another network.
    """
    if model == "dis":
        if weights:
            raise ConfigError(
                f"flow model dis takes no weights: remove {weights} or choose gmflow or raft"
            )
        return None
    if model not in _NETWORKS:
        choices = ", ".join((*_NETWORKS, "dis"))
        raise ConfigError(f"unknown flow model {model!r}: choose one of {choices}")
    choose = f"choose flow model {_OTHERS[model]}"
    path = Path(weights).expanduser() if weights else usual_flow_weights(model)
    if weights:
        remedy = f"correct the path, or {choose}"
    elif model == "raft":
        remedy = PULL
    else:
        remedy = f"put the published file there, or {choose}"
    _require_file(path, remedy)
    require_network(path, _NETWORKS[model], f"name another file, or {choose}")
    return path


def _require_file(path: Path, remedy: str) -> None:
    if not path.is_file():
        raise ModelsError(f"flow weights {path} not found: {remedy}")
