"""Optical flow: directions, sizes, determinism, weights."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models.optical_flow import raft_large

from fresco_core.errors import ConfigError, ModelsError
from fresco_core.flow import FlowModel, gmflow_network, load_flow
from fresco_core.flow.dis import DisFlow
from fresco_core.flow.inverse_search import InverseSearch
from fresco_core.flow.raft import RaftFlow
from fresco_core.flow.raft_weights import URL, cached_raft_weights
from fresco_core.flow.weights import FLOW, GMFLOW_FILE
from fresco_core.network_choice import NetworkChoice
from tests.fresco_core.small_networks import egnet_state, gmflow_state, save_weights


def textured(rows: int, columns: int, shift: tuple[float, float] = (0, 0), seed: int = 0) -> Tensor:
    """A smooth random RGB picture whose content lies ``shift`` = (x, y) pixels further on."""
    noise = np.random.default_rng(seed).normal(size=(rows + 40, columns + 40, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255
    move = np.array([[1, 0, shift[0] - 20], [0, 1, shift[1] - 20]], dtype=np.float64)
    moved = cv2.warpAffine(smooth, move, (columns, rows), flags=cv2.INTER_CUBIC)
    picture = np.clip(np.rint(moved), 0, 255).astype(np.uint8)
    return torch.from_numpy(picture).permute(2, 0, 1)


@pytest.mark.parametrize("size", [(64, 64), (63, 65), (128, 96), (479, 853)])
@pytest.mark.parametrize("shift", [(3.0, -2.0), (0.5, 1.25)])
def test_dis_recovers_a_translation_in_both_directions(
    size: tuple[int, int], shift: tuple[float, float]
) -> None:
    first, second = textured(*size), textured(*size, shift)
    forward, backward = load_flow("dis")(first[None], second[None])
    assert forward.shape == backward.shape == (1, 2, *size)
    assert forward.dtype == backward.dtype == torch.float32
    expected = torch.tensor(shift)[:, None, None]
    inside = (slice(None), slice(12, -12), slice(12, -12))
    assert (forward[0][inside] - expected).abs().max() < 0.3
    assert (backward[0][inside] + expected).abs().max() < 0.3


def test_dis_keeps_pairs_apart_and_repeats_itself() -> None:
    frames = torch.stack([textured(64, 80), textured(64, 80, (2, 0)), textured(64, 80, (2, 3))])
    model = DisFlow()
    forward, backward = model(frames, frames.roll(-1, 0))
    again = model(frames, frames.roll(-1, 0))
    assert torch.equal(forward, again[0])
    assert torch.equal(backward, again[1])
    for i in range(3):
        alone = DisFlow()(frames[i : i + 1], frames.roll(-1, 0)[i : i + 1])
        assert torch.equal(alone[0][0], forward[i])
    # Frames 0 and 2 are each other's mirror in time for the ring's last pair.
    assert torch.equal(model(frames[:1], frames[2:])[0][0], backward[2])


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (8, 31), (15, 200)])
def test_dis_takes_frames_that_opencv_refuses(size: tuple[int, int]) -> None:
    forward, backward = DisFlow()(textured(*size)[None], textured(*size, (1, 0))[None])
    assert forward.shape == backward.shape == (1, 2, *size)
    assert forward.isfinite().all()
    assert backward.isfinite().all()


@pytest.fixture(scope="module")
def raft_state() -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return raft_large(weights=None).state_dict()


@pytest.fixture(scope="module")
def raft(raft_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> FlowModel:
    path = tmp_path_factory.mktemp("raft") / "raft.safetensors"
    save_file(raft_state, path)
    return load_flow("raft", str(path))


def test_raft_flow_has_the_frames_size_whatever_the_padding(raft: FlowModel) -> None:
    frames = torch.stack([textured(61, 139), textured(61, 139, (2, 1)), textured(61, 139, seed=1)])
    forward, backward = raft(frames, frames.roll(-1, 0))
    assert forward.shape == backward.shape == (3, 2, 61, 139)
    assert forward.dtype == torch.float32
    assert not forward.requires_grad
    assert torch.equal(forward, raft(frames, frames.roll(-1, 0))[0])
    alone = raft(frames[1:2], frames[2:])
    assert torch.equal(alone[0][0], forward[1])
    assert torch.equal(alone[1][0], backward[1])
    # backward is forward with the frames exchanged
    torch.testing.assert_close(raft(frames[2:], frames[1:2])[0][0], backward[1])


def test_raft_equals_torchvision_on_a_size_that_needs_no_padding(
    raft: FlowModel, raft_state: dict[str, Tensor]
) -> None:
    from torchvision.models.optical_flow import Raft_Large_Weights

    network = raft_large(weights=None).eval()
    network.load_state_dict(raft_state)
    first, second = textured(128, 136)[None], textured(128, 136, (3, 1))[None]
    with torch.no_grad():
        expected = network(*Raft_Large_Weights.C_T_V1.transforms()(first, second))[-1]
    torch.testing.assert_close(raft(first, second)[0], expected, rtol=1e-4, atol=1e-4)


def test_raft_reads_a_pth_state_dict(raft_state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(raft_state, tmp_path / "raft.pth")
    loaded = RaftFlow.load(str(tmp_path / "raft.pth"))
    assert torch.equal(
        loaded._network.state_dict()["mask_predictor.conv.bias"],
        raft_state["mask_predictor.conv.bias"],
    )


def test_raft_weights_lie_where_torchvision_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models.optical_flow import Raft_Large_Weights

    assert Raft_Large_Weights.C_T_V1.url == URL
    for variable in ("TORCH_HOME", "XDG_CACHE_HOME"):
        for value in (None, "/somewhere", "~/here"):
            if value is None:
                monkeypatch.delenv(variable, raising=False)
            else:
                monkeypatch.setenv(variable, value)
            assert cached_raft_weights().parent == Path(torch.hub.get_dir(), "checkpoints")


def test_missing_raft_weights_name_the_file_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelsError, match=r"none\.pth not found: correct the path"):
        load_flow("raft", str(tmp_path / "none.pth"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelsError, match=r"raft_large.*frescod models pull"):
        load_flow("raft")


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
def test_damaged_raft_weights_are_refused(
    raft_state: dict[str, Tensor], tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(raft_state, path)
    else:
        save_file(raft_state, path)
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.raises(ModelsError, match="fetch it again"):
        load_flow("raft", str(path))


@pytest.mark.parametrize("content", [b"", b"abc", b"\x80\x02."])
def test_what_is_no_weights_at_all_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(ModelsError, match="fetch it again"):
        load_flow("raft", str(tmp_path / "x.ckpt"))


def test_another_networks_weights_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelsError, match="an unknown network, not torchvision's RAFT large"):
        load_flow("raft", str(tmp_path / "other.safetensors"))


class Harmful:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("unpickled",)


def test_pickled_code_is_never_run(
    raft_state: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({**raft_state, "a": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(ModelsError, match="holds more than weights"):
        load_flow("raft", str(tmp_path / "harmful.pth"))
    assert "unpickled" not in capsys.readouterr().out


def test_unknown_model_and_pointless_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="choose one of gmflow, raft, dis"):
        load_flow("pwc")
    with pytest.raises(ConfigError, match="dis takes no weights"):
        load_flow("dis", "x.pth")


def test_inverse_search_needs_no_torch() -> None:
    program = """
import sys
from fresco_core.flow.inverse_search import InverseSearch
from fresco_core.flow.raft_weights import cached_raft_weights
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("size", [(200, 240), (9, 30)])
def test_inverse_search_does_not_depend_on_what_it_did_before(size: tuple[int, int]) -> None:
    """Nor on the pairs beside: whoever searches a pair finds the same, laid out alike."""
    frames = np.stack([textured(*size, shift).permute(1, 2, 0) for shift in ((0, 0), (4, 2))])
    used = InverseSearch()
    many = used(frames[[1, 0, 1]], frames[[0, 1, 1]])
    alone = InverseSearch()(frames[:1], frames[1:])
    for side in (0, 1):
        assert np.array_equal(many[side][1], alone[side][0])
        assert many[side].transpose(0, 2, 3, 1).flags.c_contiguous


def test_inverse_search_does_not_depend_on_threads() -> None:
    first, second = (textured(200, 240, shift)[None] for shift in ((0, 0), (9, 4)))
    model, threads, found = DisFlow(), cv2.getNumThreads(), []
    try:
        for count in (1, 2, 5):
            cv2.setNumThreads(count)
            found.append(model(first, second)[0])
    finally:
        cv2.setNumThreads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.fixture(scope="module")
def gmflow(tmp_path_factory: pytest.TempPathFactory) -> FlowModel:
    path = tmp_path_factory.mktemp("gmflow") / "gmflow.pth"
    return load_flow("gmflow", save_weights(path, gmflow_state(), "model"))


@pytest.mark.parametrize("size", [(1, 1), (16, 48), (61, 139)])
def test_gmflow_takes_any_size_and_keeps_pairs_apart(
    gmflow: FlowModel, size: tuple[int, int]
) -> None:
    frames = torch.stack([textured(*size), textured(*size, (2, 1)), textured(*size, seed=1)])
    forward, backward = gmflow(frames, frames.roll(-1, 0))
    assert forward.shape == backward.shape == (3, 2, *size)
    assert forward.dtype == backward.dtype == torch.float32
    assert forward.isfinite().all()
    alone = gmflow(frames[1:2], frames[2:])
    assert torch.equal(alone[0][0], forward[1])
    assert torch.equal(alone[1][0], backward[1])
    # backward is forward with the frames exchanged
    torch.testing.assert_close(gmflow(frames[2:], frames[1:2])[0][0], backward[1])


def test_gmflow_of_an_extended_frame_is_cut_to_the_frame(gmflow: FlowModel) -> None:
    """Frames of a size that fits, whose edge is repeated, are what smaller ones are made to."""
    pair = torch.stack([textured(60, 90), textured(60, 90, (2, 1))])
    extended = torch.nn.functional.pad(pair.float(), (3, 3, 2, 2), mode="replicate").byte()
    forward = gmflow(pair[:1], pair[1:])[0]
    whole = gmflow(extended[:1], extended[1:])[0]
    torch.testing.assert_close(forward, whole[..., 2:-2, 3:-3])


def test_gmflow_needs_no_more_memory_than_is_set(
    gmflow: FlowModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = torch.stack([textured(96, 128), textured(96, 128, (2, 1))])
    at_once = gmflow(pair[:1], pair[1:])[0]
    largest, softmax = [], Tensor.softmax

    def watched(scores: Tensor, axis: int) -> Tensor:
        largest.append(scores.numel())
        return softmax(scores, axis)

    monkeypatch.setattr(gmflow_network, "_SCORES", 4000)
    monkeypatch.setattr(Tensor, "softmax", watched)
    in_parts = gmflow(pair[:1], pair[1:])[0]
    # attention's tokens are fewer than those of the up-sampling, which is no square of them
    assert sorted(largest)[-2] <= 4000
    assert len(largest) > 50
    torch.testing.assert_close(in_parts, at_once)


class TestChoice:
    """What ``auto`` means, and what is refused before anything is loaded."""

    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        return tmp_path / "torch" / "hub" / "checkpoints"

    def test_auto_takes_the_best_whose_weights_are_there(
        self, home: Path, raft_state: dict[str, Tensor]
    ) -> None:
        found = FLOW.choose("auto")
        assert (found.model, found.weights) == ("dis", None)
        assert str(home / GMFLOW_FILE) in found.why
        raft = save_weights(cached_raft_weights(), raft_state)
        found = FLOW.choose("auto", "")
        assert (found.model, str(found.weights)) == ("raft", raft)
        assert raft in found.why
        gmflow = save_weights(home / GMFLOW_FILE, gmflow_state(), "model", old=True)
        found = FLOW.choose("auto")
        assert (found.model, str(found.weights)) == ("gmflow", gmflow)
        assert load_flow(found.model, str(found.weights)).name == "gmflow"

    def test_auto_takes_what_a_file_holds(
        self, tmp_path: Path, raft_state: dict[str, Tensor]
    ) -> None:
        for state, model in ((gmflow_state(), "gmflow"), (raft_state, "raft")):
            path = save_weights(tmp_path / "x.safetensors", state)
            found = FLOW.choose("auto", path)
            assert (found.model, str(found.weights)) == (model, path)
        path = save_weights(tmp_path / "x.pth", egnet_state())
        with pytest.raises(ModelsError, match=r"x\.pth holds EGNet, not GMFlow or torchvision"):
            FLOW.choose("auto", path)
        with pytest.raises(ModelsError, match=r"none\.pth not found: correct the path"):
            FLOW.choose("auto", str(tmp_path / "none.pth"))

    def test_a_damaged_file_in_the_usual_place_is_told_of(self, home: Path) -> None:
        home.mkdir(parents=True)
        (home / GMFLOW_FILE).write_bytes(b"half a download")
        with pytest.raises(ModelsError, match=f"{GMFLOW_FILE} is damaged"):
            FLOW.choose("auto")

    def test_a_named_model_is_checked_only(self, home: Path, tmp_path: Path) -> None:
        assert FLOW.choose("dis") == NetworkChoice("dis", None)
        path = save_weights(tmp_path / "x.pth", gmflow_state())
        assert FLOW.choose("gmflow", path) == NetworkChoice("gmflow", Path(path))
        with pytest.raises(ModelsError, match=f"{GMFLOW_FILE} not found: put the published file"):
            FLOW.choose("gmflow")
        with pytest.raises(ModelsError, match="holds GMFlow, not torchvision's RAFT large"):
            load_flow("raft", path)
        with pytest.raises(ConfigError, match="dis takes no weights"):
            FLOW.choose("dis", path)
        with pytest.raises(ConfigError, match="choose one of gmflow, raft, dis"):
            FLOW.choose("pwc")

    def test_weights_of_another_form_of_gmflow_are_refused(self, tmp_path: Path) -> None:
        state = gmflow_state()
        state["upsampler.2.weight"] = torch.zeros(144, 8, 1, 1)  # that of two scales
        path = save_weights(tmp_path / "x.pth", state)
        with pytest.raises(ModelsError, match=r"does not fit GMFlow .*another form of it"):
            load_flow("gmflow", path)
