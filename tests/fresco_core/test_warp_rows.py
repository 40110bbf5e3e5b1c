import pytest
import torch

from fresco_core.correspondence import warp
from fresco_core.warp_rows import ring_rows, warp_rows
from tests.fresco_core.scenes import shifted_pairs


@pytest.mark.parametrize(("height", "width"), [(8, 8), (3, 5), (1, 4), (4, 1)])
def test_rows_and_their_transpose_are_the_warp_and_its_gradient(height: int, width: int):
    torch.manual_seed(height)
    flow = torch.randn(2, 2, height, width) * 1.5
    occluded = (torch.rand(2, 1, height, width) > 0.7).float()
    rows = warp_rows(flow, occluded)
    image = torch.randn(2, 3, height, width, requires_grad=True)
    warped = warp(image, flow)

    tokens = image.detach().flatten(2).transpose(1, 2)
    found = torch.stack(
        [(tokens[n][rows.token[n].long()] * rows.weight[n][..., None]).sum(1) for n in range(2)]
    )
    assert torch.allclose(found, warped.detach().flatten(2).transpose(1, 2), atol=1e-5)

    pull = torch.randn(2, height * width, 3)
    ((warped * (1 - occluded)).flatten(2).transpose(1, 2) * pull).sum().backward()
    gradient = torch.zeros_like(tokens)
    for n in range(2):
        for p in range(height * width):
            for entry in range(int(rows.start[n, p]), int(rows.start[n, p + 1])):
                gradient[n, p] += rows.row_weight[n, entry] * pull[n, int(rows.row[n, entry])]
    assert torch.allclose(gradient, image.grad.flatten(2).transpose(1, 2), atol=1e-5)


def test_both_directions_on_a_coarse_grid():
    backward, forward = ring_rows(shifted_pairs(3, 64, 64, 8), 8)
    # One token to the right: the first column of the successor sees outside, and the other way.
    assert backward.weight[0].sum(1).reshape(8, 8)[0].tolist() == [1] * 7 + [0]
    assert forward.weight[0].sum(1).reshape(8, 8)[0].tolist() == [0] + [1] * 7
