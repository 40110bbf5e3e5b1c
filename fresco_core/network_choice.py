"""Choosing among networks for one purpose by the weights that are there (needs no torch)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fresco_core.errors import ConfigError, ModelsError
from fresco_core.hub import PULL
from fresco_core.network_files import network_in, require_network


@dataclass(frozen=True)
class NetworkChoice:
    """A model, as the loaders take it.

    Attributes:
        model: its name in settings.
        weights: its file; None where the model has none.
        why: for the user, where the model was chosen for them; else empty.
    """

    model: str
    weights: Path | None
    why: str = ""


@dataclass(frozen=True)
class NetworkFamily:
    """Networks for one purpose, and a way that needs no weights.

    Attributes:
        purpose: in messages: ``"flow"``.
        networks: names in settings and `fresco_core.network_files`' titles, the best first.
        plain: the name of what needs no weights.
        usual: where the weights of a network usually lie, present or not.
        pulled: the networks whose weights are fetched with the models.
    """

    purpose: str
    networks: Mapping[str, str]
    plain: str
    usual: Callable[[str], Path]
    pulled: tuple[str, ...] = ()

    def choose(self, model: str, weights: str | None = None) -> NetworkChoice:
        """The model that a setting means.

        ``"auto"`` is what ``weights`` holds; without it, the best whose weights lie in the usual
        place, else the one that needs none.

        Args:
            model: ``"auto"``, or a name.
            weights: file; None or empty for the usual one.

        Raises:
            ConfigError: unknown model, or weights given to one that has none.
            ModelsError: weights are missing, damaged or of another network.
        """
        if model != "auto":
            return NetworkChoice(model, self.find(model, weights))
        if weights:
            path = Path(weights).expanduser()
            self._require_file(path, "correct the path")
            held = network_in(path)
            for known, title in self.networks.items():
                if held == title:
                    return NetworkChoice(known, path, f"{path} holds {title}")
            raise ModelsError(
                f"{path} holds {held or 'an unknown network'}, not "
                f"{' or '.join(self.networks.values())}: name another file, or choose "
                f"{self.purpose} model {self.plain}"
            )
        for known in self.networks:
            if (path := self.usual(known)).is_file():
                return NetworkChoice(known, self.find(known), f"its weights are there ({path})")
        places = ", ".join(str(self.usual(known)) for known in self.networks)
        return NetworkChoice(self.plain, None, f"no weights of a better one are there ({places})")

    def find(self, model: str, weights: str | None = None) -> Path | None:
        """The file that loading a model would read; None where it has no weights.

        Only the file's header is read: what is damaged behind it shows when it is loaded.

        Args:
            model: a name, not ``"auto"``.
            weights: file; None or empty for the usual one.

        Raises:
            ConfigError: unknown model, or weights given to one that has none.
            ModelsError: the file is missing, damaged or holds another network.
        """
        names = [*self.networks, self.plain]
        if model not in names:
            raise ConfigError(
                f"unknown {self.purpose} model {model!r}: choose one of {', '.join(names)}"
            )
        if model == self.plain:
            if weights:
                raise ConfigError(
                    f"{self.purpose} model {model} takes no weights: remove {weights} or choose "
                    f"{' or '.join(self.networks)}"
                )
            return None
        choose = f"choose {self.purpose} model {' or '.join(names[names.index(model) + 1 :])}"
        path = Path(weights).expanduser() if weights else self.usual(model)
        if weights:
            remedy = f"correct the path, or {choose}"
        elif model in self.pulled:
            remedy = PULL
        else:
            remedy = f"put the published file there, or {choose}"
        self._require_file(path, remedy)
        require_network(path, self.networks[model], f"name another file, or {choose}")
        return path

    def _require_file(self, path: Path, remedy: str) -> None:
        if not path.is_file():
            raise ModelsError(f"{self.purpose} weights {path} not found: {remedy}")
