"""Control maps: the ControlNet's conditioning pictures, from the input frame.

Shape legend: M ControlNets, H rows, W columns, C = 3 colours (RGB).
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco_core import hub
from fresco_core.errors import ModelsError
from fresco_core.network_files import HED, MIDAS, network_in, require_network
from io_pipeline.options import MapOptions

if TYPE_CHECKING:  # canny and the places of weights can be had without torch
    import torch

Frame = NDArray[np.uint8]
Detector = Callable[[Frame, MapOptions], Frame]
# Frame, options, which of the M -> their maps, (len(which),H,W).
DrawMaps = Callable[[Frame, MapOptions, Sequence[int]], Frame]
Network = Callable[["torch.Tensor"], Any]
Kind = Literal["hed", "canny", "depth"]

DEFAULT_SOURCE = "lllyasviel/Annotators"
WEIGHTS = {"hed": "ControlNetHED.pth", "depth": "dpt_hybrid-midas-501f0c75.pt"}
_NETWORKS = {"hed": HED, "depth": MIDAS}
_DEPTH_STRIDE = 32  # DPT-Hybrid takes sides that are multiples of this


def load_detector(
    kind: Kind,
    *,
    source: str | None = None,
    device: str = "cpu",
    offline: bool = False,
) -> Detector:
    """Load a detector: uint8 RGB (H,W,3) frame, options -> uint8 (H,W) map of the same size.

    Args:
        kind: ``"canny"`` (OpenCV, on the colour frame), ``"hed"`` (soft edges) or ``"depth"``
            (MiDaS DPT-Hybrid, near is bright), the two through controlnet-aux.
        source: weights of hed or depth: hub id, folder with the file of the usual name, or file.
            None means ``lllyasviel/Annotators``.
        device: where the network runs.
        offline: never ask the hub.

    Raises:
        ModelsError: weights are missing, damaged or of another network.
    """
    if kind == "canny":
        return _detect_canny
    path = find_detector(kind, source, offline=offline)
    assert path is not None
    # The packages' own calls resize every frame to 512; here the networks see its own size.
    detect = _detect_edges if kind == "hed" else _detect_depth
    return partial(detect, _load(kind, path, device), device)


class Detectors:
    """The detectors of all ControlNets; each is loaded when it first draws.

    >>> detectors = Detectors(["canny", "hed"])
    >>> detectors(frame_HWC, MapOptions(), [0, 1]).shape
    (2, 512, 512)
    """

    def __init__(
        self,
        kinds: Sequence[Kind],
        sources: Sequence[str] = ("",),
        *,
        device: str = "cpu",
        offline: bool = False,
    ) -> None:
        """What to load.

        Args:
            kinds: of the ControlNets, in order.
            sources: as `load_detector`'s, "" the usual one: one for each kind, or one for all.
            device, offline: as `load_detector`'s.

        Raises:
            ValueError: so many sources are not for so many kinds.
        """
        if len(sources) not in (1, len(kinds)):
            raise ValueError(f"{len(sources)} sources for {len(kinds)} detectors")
        sources = sources if len(sources) == len(kinds) else (*sources,) * len(kinds)
        self._chosen = list(zip(kinds, sources, strict=True))
        self._device, self._offline = device, offline
        self._loaded: dict[tuple[Kind, str], Detector] = {}

    def load(self) -> "Detectors":
        """Load all of them now.

        Raises:
            ModelsError: as `load_detector`.
        """
        for kind, source in self._chosen:
            self._detector(kind, source)
        return self

    def __call__(self, frame_HWC: Frame, options: MapOptions, which: Sequence[int]) -> Frame:
        """The control maps, uint8 (len(which),H,W), of a uint8 RGB frame for some ControlNets.

        Raises:
            ModelsError: as `load_detector`.
        """
        chosen = [self._chosen[control] for control in which]
        # Two ControlNets of one kind and source see the same map.
        maps_HW = {each: self._detector(*each)(frame_HWC, options) for each in set(chosen)}
        return np.stack([maps_HW[each] for each in chosen])

    def _detector(self, kind: Kind, source: str) -> Detector:
        if (kind, source) not in self._loaded:
            self._loaded[kind, source] = load_detector(
                kind, source=source or None, device=self._device, offline=self._offline
            )
        return self._loaded[kind, source]


def load_detectors(
    kinds: Sequence[Kind],
    sources: Sequence[str] = ("",),
    *,
    device: str = "cpu",
    offline: bool = False,
) -> Detectors:
    """The detectors of all ControlNets, loaded; arguments as of `Detectors`.

    Raises:
        ModelsError: weights are missing, damaged or of another network.
        ValueError: so many sources are not for so many kinds.
    """
    return Detectors(kinds, sources, device=device, offline=offline).load()


def find_detector(kind: Kind, source: str | None = None, *, offline: bool = False) -> Path | None:
    """The weights file of a detector; None for canny, which has none.

    What the hub's cache lacks is downloaded unless ``offline``.

    Raises:
        ModelsError: it is not there.
    """
    if kind == "canny":
        return None
    name, place = WEIGHTS[kind], Path(source or DEFAULT_SOURCE).expanduser()
    if place.is_dir():
        place /= name
    if place.is_file():
        return place
    repository = source or DEFAULT_SOURCE
    if not hub.is_hub_id(repository) or place.name == name:
        raise ModelsError(
            f"{kind} detector {place} not found: give a hub id, or a file or folder with {name}"
        )
    if not offline:
        return hub.fetch_file(repository, name)
    cached = hub.cached_file(repository, name)
    if cached is None:
        absence = hub.absence(repository)
        raise ModelsError(f"{kind} detector {repository}/{name} {absence}: {hub.PULL}")
    return cached


def check_detector(kind: Kind, source: str | None = None) -> None:
    """See to it that a detector's weights are on this machine and those of its network.

    Raises:
        ModelsError: they are missing, damaged or of another network.
    """
    path = find_detector(kind, source, offline=True)
    if path is not None:
        remedy = f"name a folder or file with {WEIGHTS[kind]} as control.source"
        require_network(path, _NETWORKS[kind], remedy)


def _detect_canny(frame_HWC: Frame, options: MapOptions) -> Frame:
    edges_HW: Frame = cv2.Canny(frame_HWC, options.canny_low, options.canny_high)
    return edges_HW


def _detect_edges(network: Network, device: str, frame_HWC: Frame, _: MapOptions) -> Frame:
    """HED: the sigmoid of the mean of five side maps."""
    rows, columns = frame_HWC.shape[:2]
    sides_11hw = _run(network, _batch(frame_HWC, device))
    sides_HW = [
        cv2.resize(side.cpu().numpy()[0, 0], (columns, rows), interpolation=cv2.INTER_LINEAR)
        for side in sides_11hw
    ]
    mean_HW = np.mean(np.stack(sides_HW), axis=0).astype(np.float64)
    return _to_uint8(1 / (1 + np.exp(-mean_HW)))


def _detect_depth(network: Network, device: str, frame_HWC: Frame, _: MapOptions) -> Frame:
    """MiDaS: inverse depth spread over the whole range; a scene without relief is black."""
    rows, columns = frame_HWC.shape[:2]
    padded_HWC = cv2.copyMakeBorder(
        frame_HWC, 0, -rows % _DEPTH_STRIDE, 0, -columns % _DEPTH_STRIDE, cv2.BORDER_REPLICATE
    )
    depth_1HW = _run(network, _batch(padded_HWC, device) / 127.5 - 1)
    depth_HW = depth_1HW[0, :rows, :columns].cpu().numpy()
    depth_HW = depth_HW - depth_HW.min()
    return _to_uint8(depth_HW / max(depth_HW.max(), np.finfo(np.float32).tiny))


def _run(network: Network, input_13HW: "torch.Tensor") -> Any:
    import torch

    with torch.no_grad():
        return network(input_13HW)


def _batch(frame_HWC: Frame, device: str) -> "torch.Tensor":
    import torch

    return torch.from_numpy(frame_HWC).to(device, torch.float32).permute(2, 0, 1)[None]


def _to_uint8(map_HW: NDArray[Any]) -> Frame:
    result: Frame = (map_HW * 255).clip(0, 255).astype(np.uint8)
    return result


def _load(kind: Kind, path: Path, device: str) -> Network:
    with warnings.catch_warnings():
        # Importing the package imports all its detectors, with the warnings of each.
        warnings.simplefilter("ignore")
        try:
            if kind == "hed":
                from controlnet_aux.hed import HEDdetector

                detector = HEDdetector.from_pretrained(str(path.parent), filename=path.name)
                network = detector.netNetwork
            else:
                from controlnet_aux.midas import MidasDetector

                detector = MidasDetector.from_pretrained(str(path.parent), filename=path.name)
                network = detector.model
        except ImportError:
            raise
        except Exception as error:
            held = network_in(path)  # raises where it is damaged
            reason = " ".join(str(error).split())[:160]
            raise ModelsError(
                f"{path} holds {held or 'an unknown network'}, which is not that of the {kind} "
                f"detector: give the file {WEIGHTS[kind]} ({reason})"
            ) from error
    loaded: Network = network.to(device).requires_grad_(False)
    return loaded
