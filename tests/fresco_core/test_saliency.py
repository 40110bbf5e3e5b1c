import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fresco_core.errors import ConfigError, ModelsError
from fresco_core.flow import load_flow
from fresco_core.network_choice import NetworkChoice
from fresco_core.saliency import load_saliency
from fresco_core.saliency.camera import unlike_camera
from fresco_core.saliency.motion import motion_saliency, nearest_flows
from fresco_core.saliency.weights import EGNET_FILE, SALIENCY
from fresco_core.smoothing import background_map
from tests.fresco_core.scenes import panning, texture
from tests.fresco_core.small_networks import egnet_state, gmflow_state, save_weights


def test_the_cameras_own_motion_is_not_salient():
    rows = torch.linspace(-1, 1, 64).view(1, 64, 1)
    flow = torch.stack((rows.expand(1, 64, 64) * 5 + 30, rows.expand(1, 64, 64)), 1)
    assert motion_saliency(flow).max() == 0


def test_what_moves_on_its_own_is_salient():
    flow = torch.full((1, 2, 64, 64), 20.0)
    flow[:, 0, 20:40, 30:50] += 8
    salient = motion_saliency(flow)[0, 0]
    assert salient.shape == (32, 32)
    assert salient[12:18, 17:23].min() == 1
    assert salient[:8].max() == 0
    assert salient[22:].max() == 0


def test_single_errors_of_the_flow_are_not():
    flow = torch.zeros(1, 2, 64, 64)
    flow[:, :, ::16, ::16] = 90
    assert motion_saliency(flow).max() == 0


def test_flow_without_any_order_still_gives_a_map():
    torch.manual_seed(0)
    assert motion_saliency(torch.randn(2, 2, 16, 16) * 50).shape == (2, 1, 8, 8)
    assert motion_saliency(torch.zeros(1, 2, 16, 16)).max() == 0


def test_arrays_of_any_layout_and_any_number_of_threads_give_the_same_map():
    torch.manual_seed(0)
    flow = torch.nn.functional.interpolate(torch.randn(1, 2, 6, 6) * 9, (66, 90), mode="bilinear")
    wanted = motion_saliency(flow)[0, 0]
    assert 0 < wanted.mean() < 1
    halved = torch.nn.functional.avg_pool2d(flow, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    threads, flow_HW2 = cv2.getNumThreads(), flow[0].permute(1, 2, 0).numpy()
    try:
        for count in (1, 2, 5):
            cv2.setNumThreads(count)
            for array in (flow_HW2, np.ascontiguousarray(flow_HW2), halved[0].permute(1, 2, 0)):
                found = unlike_camera(np.asarray(array))
                assert found.dtype == np.uint8
                assert np.array_equal(found, wanted)
    finally:
        cv2.setNumThreads(threads)


def test_an_odd_row_or_column_is_left_out():
    flow_HW2 = np.full((65, 67, 2), 7, np.float32)
    flow_HW2[64], flow_HW2[:, 66] = 500, 500
    assert unlike_camera(flow_HW2).shape == (32, 33)
    assert unlike_camera(flow_HW2).max() == 0


def test_motion_on_arrays_needs_no_torch():
    program = """
import sys
import fresco_core.saliency.camera
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_last_frame_looks_back():
    forward = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 2, 2)
    found = nearest_flows(forward, 10 + forward)
    assert found[:, 0, 0, 0].tolist() == [0, 1, 11]
    assert torch.equal(nearest_flows(forward[:1], forward[:1]), forward[:1])


@pytest.mark.parametrize("step", [0, 6])
def test_a_mover_in_front_of_a_background_with_real_flow(step):
    """As far apart as key frames are: most of the background is told from the mover."""
    frames = panning(3, 192, 256, step=step) // 2
    mover = 255 - texture(60, 60, seed=9) // 3
    for i, frame in enumerate(frames):
        frame[60:120, 20 + 25 * i : 80 + 25 * i] = mover
    frames = torch.from_numpy(frames).permute(0, 3, 1, 2)
    flows = nearest_flows(*load_flow("dis")(frames, frames.roll(-1, 0)))
    background = background_map(motion_saliency(flows))
    assert (background.mean((1, 2, 3)) > 0.5).all()
    for i, frame in enumerate(background):
        left = (20 + 25 * i) // 2
        assert frame[0, 36:54, left + 6 : left + 24].mean() < 0.2


def test_motion_is_a_model_that_looks_at_the_flow_alone():
    flows = torch.full((2, 2, 64, 64), 20.0)
    flows[1, 0, 20:40, 30:50] += 8
    model = load_saliency("motion")
    assert model.name == "motion"
    frames = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    assert torch.equal(model(frames, flows), motion_saliency(flows))


def test_egnet_looks_at_each_frame_alone(tmp_path: Path):
    model = load_saliency("egnet", save_weights(tmp_path / "x.pth", egnet_state(), old=True))
    assert model.name == "egnet"
    frames = torch.from_numpy(panning(3, 48, 70)).permute(0, 3, 1, 2)
    flows = torch.zeros(3, 2, 48, 70)
    salient = model(frames, flows)
    assert salient.shape == (3, 1, 24, 35)
    assert salient.dtype == torch.float32
    assert not salient.requires_grad
    assert 0 <= salient.min() < salient.max() <= 1
    assert torch.equal(salient[1:2], model(frames[1:2], flows[1:2]))
    assert not torch.equal(salient[:1], salient[2:])
    assert torch.equal(salient, model(frames, flows + 1))


def test_egnets_weights_may_lack_what_only_training_counts(tmp_path: Path):
    state = egnet_state()
    kept = {name: state[name] for name in state if not name.endswith("num_batches_tracked")}
    assert len(kept) < len(state)
    assert load_saliency("egnet", save_weights(tmp_path / "x.pth", kept, old=True))


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_egnets_weights_decide(tmp_path: Path, name: str):
    frames, flows = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1, 2, 32, 32)
    found = [
        load_saliency("egnet", save_weights(tmp_path / name, egnet_state(seed)))(frames, flows)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_auto_takes_egnet_where_its_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    usual = tmp_path / "torch" / "hub" / "checkpoints" / EGNET_FILE
    found = SALIENCY.choose("auto", "")
    assert (found.model, found.weights) == ("motion", None)
    assert str(usual) in found.why
    save_weights(usual, egnet_state(), old=True)
    found = SALIENCY.choose("auto")
    assert (found.model, found.weights) == ("egnet", usual)
    assert load_saliency("egnet").name == "egnet"
    path = save_weights(tmp_path / "mine.safetensors", egnet_state())
    assert SALIENCY.choose("auto", path).weights == Path(path)
    assert SALIENCY.choose("egnet", path) == NetworkChoice("egnet", Path(path))
    assert SALIENCY.choose("motion") == NetworkChoice("motion", None)


def test_what_cannot_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelsError, match=f"{EGNET_FILE} not found: put the published file there"):
        load_saliency("egnet")
    with pytest.raises(ModelsError, match=r"none\.pth not found: correct the path"):
        SALIENCY.choose("auto", str(tmp_path / "none.pth"))
    path = save_weights(tmp_path / "x.pth", gmflow_state())
    with pytest.raises(ModelsError, match=r"x\.pth holds GMFlow, not EGNet"):
        SALIENCY.choose("auto", path)
    with pytest.raises(ConfigError, match="motion takes no weights"):
        load_saliency("motion", path)
    with pytest.raises(ConfigError, match="choose one of egnet, motion"):
        load_saliency("u2net")
    state = egnet_state()
    del state["merge2.final_score.2.bias"]
    path = save_weights(tmp_path / "x.pth", state)
    with pytest.raises(ModelsError, match=r"does not fit EGNet .*another form of it"):
        load_saliency("egnet", path)
