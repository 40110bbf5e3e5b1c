import pytest
import torch

from fresco_core.correspondence import (
    TokenGuides,
    consistency_occlusion,
    correspond,
    key_mask,
    link_pairs,
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


def linked(
    frame: torch.Tensor, following: torch.Tensor, flow: torch.Tensor, occluded: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One pair's mapping, and what is unlinked."""
    (mapping,), (unlinked,) = link_pairs(frame[None], following[None], flow[None], occluded[None])
    return mapping, unlinked


def test_linked_tokens_are_a_permutation_that_follows_the_flow():
    colours = torch.rand(3, 4, 6)
    flow = torch.zeros(2, 4, 6)
    flow[0] = 1  # token q of the next frame came from its right neighbour
    mapping, unlinked = linked(colours, colours, flow, torch.zeros(4, 6, dtype=torch.bool))
    assert sorted(mapping.tolist()) == list(range(24))
    assert torch.equal(unlinked.view(4, 6)[:, 0], torch.ones(4, dtype=torch.bool))
    assert torch.equal(mapping.view(4, 6)[0, 1:], torch.arange(5))


def test_a_contested_token_goes_to_the_most_alike():
    frame, following = torch.zeros(3, 1, 3), torch.zeros(3, 1, 3)
    following[:, 0, 1] = 0.1
    following[:, 0, 2] = 0.5
    flow = torch.zeros(2, 1, 3)
    flow[0] = torch.tensor([[5.0, -1.0, -2.0]])  # 1 and 2 both come from 0; 0 leaves the picture
    mapping, unlinked = linked(frame, following, flow, torch.zeros(1, 3, dtype=torch.bool))
    assert mapping[0] == 1
    assert unlinked.tolist() == [False, True, True]


@pytest.mark.parametrize(("rows", "columns", "hidden"), [(5, 7, 0.2), (4, 4, 1.0), (1, 9, 0.0)])
def test_links_as_a_loop_over_tokens_would(rows: int, columns: int, hidden: float):
    random = torch.Generator().manual_seed(rows)
    # Few colours: many tokens are equally alike, and the first of them must win.
    frames = torch.randint(0, 2, (4, 3, rows, columns), generator=random).float()
    flows = 3 * torch.randn(3, 2, rows, columns, generator=random)
    occluded = torch.rand(3, rows, columns, generator=random) < hidden
    mappings, unlinked = link_pairs(frames[:-1], frames[1:], flows, occluded)
    for pair in range(3):
        owners: dict[int, int] = {}

        def unlike(token: int, target: int, pair: int = pair) -> float:
            there, here = frames[pair].flatten(1), frames[pair + 1].flatten(1)
            return float((here[:, token] - there[:, target]).square().mean())

        for token in range(rows * columns):
            y, x = divmod(token, columns)
            to_x, to_y = (round(float(at)) for at in torch.tensor([x, y]) + flows[pair, :, y, x])
            if occluded[pair, y, x] or not (0 <= to_x < columns and 0 <= to_y < rows):
                continue
            target = to_y * columns + to_x
            if target not in owners or unlike(token, target) < unlike(owners[target], target):
                owners[target] = token
        free = iter(sorted(set(range(rows * columns)) - set(owners.values())))
        expected = [owners[t] if t in owners else next(free) for t in range(rows * columns)]
        assert mappings[pair].tolist() == expected
        assert unlinked[pair].tolist() == [t not in owners for t in range(rows * columns)]


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
