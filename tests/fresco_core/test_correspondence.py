import pytest
import torch

from fresco_core.correspondence import (
    TokenGuides,
    consistency_occlusion,
    correspond,
    key_mask,
    link_pair,
    photometric_occlusion,
    trajectories,
    warp,
    window_sum,
)
from tests.fresco_core.scenes import as_tensor, panning, shifted_pairs


def test_warp_samples_where_the_flow_points():
    picture = torch.arange(20.0).view(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5)
    flow[:, 0] = 1
    warped = warp(picture, flow)
    assert torch.allclose(warped[..., :-1], picture[..., 1:])
    assert torch.equal(warped[..., -1], torch.zeros(1, 1, 4))  # beyond the border


def test_warp_moves_rows_by_channel_one():
    picture = torch.arange(20.0).view(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5)
    flow[:, 1] = -1
    assert torch.allclose(warp(picture, flow)[..., 1:, :], picture[..., :-1, :])


def test_warp_takes_one_flow_for_many_pictures_and_a_single_pixel():
    assert warp(torch.ones(3, 2, 1, 1), torch.zeros(1, 2, 1, 1)).shape == (3, 2, 1, 1)


def test_consistent_flow_is_not_occluded_and_contradiction_is():
    pairs = shifted_pairs(1, 16, 32, 3)
    occluded = consistency_occlusion(pairs.forward_flows, pairs.backward_flows)
    assert not occluded[..., 6:].any()
    still = torch.zeros_like(pairs.forward_flows)
    assert consistency_occlusion(pairs.forward_flows, still).all()


def test_photometric_occlusion_marks_other_colours():
    black, white = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 255.0)
    flow = torch.zeros(1, 2, 4, 4)
    assert photometric_occlusion(black, white, flow).all()
    assert not photometric_occlusion(white, white, flow).any()


def test_window_sum_dilates_masks():
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 4, 4] = 1
    assert window_sum(mask, 3).sum() == 9


def test_key_mask_takes_the_first_frame_and_what_is_new():
    pairs = shifted_pairs(3, 32, 32, 0)
    occlusions = pairs.backward_occlusions.clone()
    occlusions[0, 0, :8, :8] = 1  # new in frame 1
    occlusions[2] = 1  # the ring's last pair does not count
    mask = key_mask(
        type(pairs)(pairs.forward_flows, pairs.backward_flows, occlusions, occlusions), 8
    )
    assert mask[0].all()
    assert mask[1].nonzero().tolist() == [[0]]
    assert not mask[2].any()


def test_link_pair_is_a_permutation_that_follows_the_flow():
    colours = torch.rand(3, 4, 6)
    flow = torch.zeros(2, 4, 6)
    flow[0] = 1  # token q of the next frame came from its right neighbour
    mapping, unlinked = link_pair(colours, colours, flow, torch.zeros(4, 6, dtype=torch.bool))
    assert sorted(mapping.tolist()) == list(range(24))
    assert torch.equal(unlinked.view(4, 6)[:, 0], torch.ones(4, dtype=torch.bool))
    assert torch.equal(mapping.view(4, 6)[0, 1:], torch.arange(5))


def test_link_pair_gives_a_contested_token_to_the_most_alike():
    frame, following = torch.zeros(3, 1, 3), torch.zeros(3, 1, 3)
    following[:, 0, 1] = 0.1
    following[:, 0, 2] = 0.5
    flow = torch.zeros(2, 1, 3)
    flow[0] = torch.tensor([[5.0, -1.0, -2.0]])  # 1 and 2 both come from 0; 0 leaves the picture
    mapping, unlinked = link_pair(frame, following, flow, torch.zeros(1, 3, dtype=torch.bool))
    assert mapping[0] == 1
    assert unlinked.tolist() == [False, True, True]


def test_trajectories_follow_a_pan_and_break_at_the_border():
    frames = as_tensor(panning(3, 32, 64, step=8)) / 255 * 2 - 1
    paths = trajectories(frames, shifted_pairs(3, 32, 64, 8), 8)
    grid = paths.forward.view(3, 4, 8)
    assert torch.equal(grid[1][:, 1:], grid[0][:, :-1])  # one token to the left a frame
    assert torch.equal(paths.forward.gather(1, paths.backward), torch.arange(32).expand(3, -1))
    linked = paths.linked.view(4, 8, 3, 3)
    assert linked[:, 2:].all()
    assert not linked[:, 0, 0, 1].any()


def test_guides_are_made_once_for_each_grid():
    frames = as_tensor(panning(2, 64, 64))
    guides = TokenGuides(frames, shifted_pairs(2, 64, 64, 4))
    assert guides.key_tokens(64).frames == 2
    assert guides.trajectories(16).forward.shape == (2, 16)
    assert guides.trajectories(16) is guides.trajectories(16)


def test_correspondence_on_a_coarser_grid():
    frames = as_tensor(panning(3, 64, 64))
    pairs = correspond(frames, *(shifted_pairs(3, 64, 64, 4).forward_flows * s for s in (1, -1)))
    coarse = pairs.on_grid(8)
    assert coarse.forward_flows.shape == (3, 2, 8, 8)
    assert coarse.forward_flows[0, 0].mean() == pytest.approx(-0.5)
    assert pairs.on_grid(64) is pairs
