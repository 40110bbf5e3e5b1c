"""Which weights a saliency model has and where they lie (needs no torch)."""

from dataclasses import dataclass
from pathlib import Path

from fresco_core.errors import ConfigError, ModelsError
from fresco_core.network_files import EGNET, checkpoints_folder, require_network

EGNET_FILE = "epoch_resnet.pth"

_OTHER = "or choose saliency model motion"


@dataclass(frozen=True)
class SaliencyChoice:
    """A saliency model for `fresco_core.saliency.load_saliency`.

    Attributes:
        model: ``"egnet"`` or ``"motion"``.
        weights: its file; None where the model has none.
        why: for the user, where the model was chosen for them; else empty.
    """

    model: str
    weights: Path | None
    why: str = ""


def usual_saliency_weights() -> Path:
    """Where EGNet's weights usually lie, present or not."""
    return checkpoints_folder() / EGNET_FILE


def choose_saliency(model: str, weights: str | None = None) -> SaliencyChoice:
    """The saliency model that a setting means.

    ``"auto"`` is EGNet where weights are named or lie in the usual place, else motion.

    Args:
        model: ``"auto"``, ``"egnet"`` or ``"motion"``.
        weights: file; None or empty for the usual one.

    Raises:
        ConfigError: unknown model, or weights given to a model that has none.
        ModelsError: weights are missing, damaged or of another network.
    """
    if model != "auto":
        return SaliencyChoice(model, find_saliency_weights(model, weights))
    if weights:
        return SaliencyChoice(
            "egnet", find_saliency_weights("egnet", weights), "its weights are named"
        )
    usual = usual_saliency_weights()
    if usual.is_file():
        return SaliencyChoice(
            "egnet", find_saliency_weights("egnet"), f"its weights are there ({usual})"
        )
    return SaliencyChoice("motion", None, f"no weights of EGNet are there ({usual})")


def find_saliency_weights(model: str, weights: str | None = None) -> Path | None:
    """The file that loading a saliency model would read; None for motion, which has no weights.

    Only the file's header is read: what is damaged behind it shows when it is loaded.

    Args:
        model: ``"egnet"`` or ``"motion"``.
        weights: file; None or empty for the usual one.

    Raises:
        ConfigError: unknown model, or weights given to motion.
        ModelsError: the file is missing, damaged or holds another network.
    """
    if model == "motion":
        if weights:
            raise ConfigError(
                f"saliency model motion takes no weights: remove {weights} or choose egnet"
            )
        return None
    if model != "egnet":
        raise ConfigError(f"unknown saliency model {model!r}: choose one of egnet, motion")
    path = Path(weights).expanduser() if weights else usual_saliency_weights()
    if not path.is_file():
        remedy = "correct the path" if weights else "put the published file there"
        raise ModelsError(f"saliency weights {path} not found: {remedy}, {_OTHER}")
    require_network(path, EGNET, f"name another file, {_OTHER}")
    return path
