import pytest
import torch

from fresco_core.flow import load_flow
from fresco_core.saliency import motion_saliency, nearest_flows
from fresco_core.smoothing import background_map
from tests.fresco_core.scenes import panning, texture


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
