"""Control maps: size, values, loading."""

import json
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import LocalEntryNotFoundError

from fresco_core import hub
from fresco_core.errors import ModelsError
from fresco_core.network_files import network_in
from io_pipeline import control_maps
from io_pipeline.control_maps import (
    WEIGHTS,
    Detectors,
    _detect_depth,
    find_detector,
    load_detector,
    load_detectors,
)
from io_pipeline.options import MapOptions
from tests.fresco_core.small_networks import gmflow_state, save_weights


def picture(rows: int, columns: int) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(rows, columns, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return ((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def hed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the file that controlnet-aux's loader reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from controlnet_aux.hed import ControlNetHED_Apache2
    folder = tmp_path_factory.mktemp("hed")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(ControlNetHED_Apache2().state_dict(), folder / WEIGHTS["hed"])
    return folder


def test_canny_is_opencvs_on_the_colour_frame() -> None:
    frame = picture(64, 96)
    assert np.array_equal(load_detector("canny")(frame, MapOptions()), cv2.Canny(frame, 50, 100))
    other = load_detector("canny")(frame, MapOptions(10, 20))
    assert np.array_equal(other, cv2.Canny(frame, 10, 20))
    assert other.sum() > cv2.Canny(frame, 50, 100).sum()


@pytest.mark.parametrize("size", [(64, 128), (192, 64), (239, 427), (17, 70)])
def test_hed_has_the_frames_size_whatever_it_is(hed_folder: Path, size: tuple[int, int]) -> None:
    edges = load_detector("hed", source=str(hed_folder))(picture(*size), MapOptions())
    assert edges.shape == size
    assert edges.dtype == np.uint8
    assert edges.flags.c_contiguous


def test_hed_loads_from_a_file_of_any_name(hed_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "edges.pth"
    path.write_bytes((hed_folder / WEIGHTS["hed"]).read_bytes())
    frame = picture(64, 64)
    expected = load_detector("hed", source=str(hed_folder))(frame, MapOptions())
    assert np.array_equal(load_detector("hed", source=str(path))(frame, MapOptions()), expected)


def test_hed_agrees_with_the_reference(reference_dir: Path, tmp_path: Path) -> None:
    """Formula weights: every tensor is drawn from a generator seeded with its name."""
    keys = json.loads((reference_dir / "hed_keys.json").read_text())
    multipliers = keys["formula_weights"]["multipliers"]
    offsets = keys["formula_weights"]["offsets"]
    state = {}
    for name, entry in keys["parameters"].items():
        shape = entry["shape"]
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) & 0x7FFFFFFF)
        drawn = torch.randn(shape, generator=generator)
        if len(shape) >= 2:
            drawn *= (keys["formula_weights"]["gain"] / np.prod(shape[1:])) ** 0.5
        elif name.endswith("bias"):
            drawn *= 0.05
        else:
            drawn = 1 + 0.1 * drawn
        state[name] = drawn * multipliers.get(name, 1) + offsets.get(name, 0)
    torch.save(state, tmp_path / WEIGHTS["hed"])
    with np.load(reference_dir / "hed.npz") as case:
        edges = load_detector("hed", source=str(tmp_path))(case["frame"], MapOptions())
        assert np.abs(edges.astype(int) - case["edge"].astype(int)).max() <= 1


@pytest.fixture(scope="module")
def depth_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the real DPT-Hybrid, in half precision to keep the file small."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from controlnet_aux.midas.midas.dpt_depth import DPTDepthModel

        with torch.device("meta"):  # shapes only: its own random start takes longer than the test
            network = DPTDepthModel(path=None, backbone="vitb_rn50_384", non_negative=True)
    generator = torch.Generator().manual_seed(0)
    state = {
        name: (
            torch.randn(tensor.shape, generator=generator) / max(1, tensor[0:1].numel()) ** 0.5
        ).half()
        if tensor.ndim > 1
        else torch.full(tensor.shape, 0.5).half()
        for name, tensor in network.state_dict().items()
    }
    folder = tmp_path_factory.mktemp("depth")
    torch.save(state, folder / WEIGHTS["depth"])
    return folder


def test_depth_has_the_frames_size_and_the_whole_range(depth_folder: Path) -> None:
    assert network_in(depth_folder / WEIGHTS["depth"]) == "a MiDaS depth network"
    draw = load_detector("depth", source=str(depth_folder))
    depth = draw(picture(64, 100), MapOptions())
    assert depth.shape == (64, 100)
    assert depth.dtype == np.uint8
    assert (depth.min(), depth.max()) == (0, 255)
    assert len(np.unique(depth)) > 20


def test_several_detectors_draw_their_maps_in_order(hed_folder: Path) -> None:
    kinds, sources = ("canny", "hed", "canny"), ("", str(hed_folder), "")
    draw, frame, options = load_detectors(kinds, sources), picture(64, 96), MapOptions(10, 20)
    canny = cv2.Canny(frame, 10, 20)
    hed = load_detector("hed", source=str(hed_folder))(frame, options)
    assert np.array_equal(draw(frame, options, (0, 1, 2)), np.stack([canny, hed, canny]))
    assert np.array_equal(draw(frame, options, (1,)), hed[None])


def test_one_source_is_for_all_detectors(hed_folder: Path, tmp_path: Path) -> None:
    load_detectors(("hed", "canny"), (str(hed_folder),))
    with pytest.raises(ModelsError, match=r"ControlNetHED\.pth not found"):
        load_detectors(("canny", "hed"), (str(tmp_path),))
    with pytest.raises(ValueError, match="2 sources for 3 detectors"):
        load_detectors(("canny",) * 3, ("a", "b"))


def test_a_detector_is_loaded_once_when_it_first_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(kind: str, **where: object) -> object:
        loaded.append((kind, where["source"], where["device"]))
        return lambda frame, options: frame[..., 0]

    monkeypatch.setattr(control_maps, "load_detector", load)
    draw, frame = Detectors(("hed", "depth", "hed"), ("", "a", ""), device="meta"), picture(8, 8)
    for _ in range(2):
        assert draw(frame, MapOptions(), (0, 2)).shape == (2, 8, 8)
    assert loaded == [("hed", None, "meta")]
    draw(frame, MapOptions(), (1,))
    assert loaded[1:] == [("depth", "a", "meta")]


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def absent(repository: str, name: str, **options: object) -> str:
        asked.append(f"{repository}/{name}")
        raise LocalEntryNotFoundError("not there")

    def refuse(*args: object, **options: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(hub, "hf_hub_download", absent)
    monkeypatch.setattr(HfApi, "model_info", refuse)
    return asked


@pytest.mark.parametrize("kind", ["hed", "depth"])
@pytest.mark.parametrize("offline", [True, False])
def test_weights_that_are_not_there_name_the_command_that_fetches_them(
    empty_cache: list[str], kind: str, offline: bool
) -> None:
    with pytest.raises(ModelsError, match=rf"{WEIGHTS[kind]}.*frescod models pull") as caught:
        load_detector(kind, offline=offline)  # type: ignore[arg-type]
    assert empty_cache == [f"lllyasviel/Annotators/{WEIGHTS[kind]}"]
    assert "\n" not in str(caught.value)


def test_wrong_paths_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ModelsError, match=r"ControlNetHED\.pth not found"):
        load_detector("hed", source=str(tmp_path))
    with pytest.raises(ModelsError, match=r"nothing\.pth not found"):
        load_detector("hed", source=str(tmp_path / "nothing.pth"))


def test_damaged_and_foreign_weights_are_refused(hed_folder: Path, tmp_path: Path) -> None:
    whole = (hed_folder / WEIGHTS["hed"]).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[:1000])
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    save_weights(tmp_path / "flow.pth", gmflow_state())
    for name, message in (
        ("cut.pth", "is damaged"),
        ("other.pth", "holds an unknown network, which is not that of the hed detector"),
        ("flow.pth", r"holds GMFlow.*give the file ControlNetHED\.pth"),
    ):
        with pytest.raises(ModelsError, match=rf"{name} {message}"):
            load_detector("hed", source=str(tmp_path / name))


def test_depth_without_relief_is_black() -> None:
    def flat(frames: torch.Tensor) -> torch.Tensor:
        return torch.full((1, *frames.shape[-2:]), 3.0)

    depth = _detect_depth(flat, "cpu", picture(64, 100), MapOptions())
    assert depth.shape == (64, 100)
    assert not depth.any()


def test_canny_needs_no_weights() -> None:
    assert find_detector("canny", "anything") is None
