"""Pictures seen through a flow, on a device: `fresco_core.propagation.warp` in batches.

Every operation is one of torch's, in the order of the CPU's kernels and with their rounding, so
that the results are the same bits: nothing is contracted, and no division becomes a product.

Shape suffixes: K pictures; H, W rows and columns; C channels; 2 = horizontal (x), vertical (y)
displacement.
"""

from __future__ import annotations

import torch
from torch import Tensor


def warp_nearest(pictures_KHWC: Tensor, flows_K2HW: Tensor) -> Tensor:
    """uint8 pictures (K,H,W,C), or bool masks (K,H,W), seen through float32 flows; 0 outside.

    The nearest pixel, as in `fresco_core.propagation.warp.warp_nearest`.
    """
    count, _, height, width = flows_K2HW.shape
    device = flows_K2HW.device
    column = _through_unit_range(torch.arange(width, device=device) + flows_K2HW[:, 0], width)
    row = _through_unit_range(
        torch.arange(height, device=device)[:, None] + flows_K2HW[:, 1], height
    )
    column, row = column.round_(), row.round_()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    # Set to 0 before they become whole numbers: what is outside may be as large as anything.
    column, row = column.masked_fill_(~inside, 0), row.masked_fill_(~inside, 0)
    index = row.long().mul_(width).add_(column.long())
    index += (height * width) * torch.arange(count, device=device)[:, None, None]
    pixels = pictures_KHWC.reshape(count * height * width, -1)
    warped = pixels.index_select(0, index.flatten()).view(pictures_KHWC.shape)
    return warped.masked_fill_(~(inside if warped.ndim == 3 else inside[..., None]), 0)


def occlusion(flows_K2HW: Tensor, backs_K2HW: Tensor) -> Tensor:
    """Pixels of the flows' grids that the other pictures do not show, bool (K,H,W).

    As `fresco_core.propagation.warp.occlusion`.
    """
    height, width = flows_K2HW.shape[2:]
    device = flows_K2HW.device
    left, right, a, b = _corners(torch.arange(width, device=device) + flows_K2HW[:, 0], width)
    top, bottom, c, d = _corners(
        torch.arange(height, device=device)[:, None] + flows_K2HW[:, 1], height
    )
    top *= width
    bottom *= width

    def seen(back_KP: Tensor, start_of_row: Tensor, column: Tensor, share: Tensor) -> Tensor:
        return back_KP.gather(1, (start_of_row + column).flatten(1)).view_as(share) * share

    miss, length = torch.zeros_like(a), torch.zeros_like(a)
    for flow_KHW, back_KHW in zip(flows_K2HW.unbind(1), backs_K2HW.unbind(1), strict=True):
        back_KP = back_KHW.flatten(1)
        upper = seen(back_KP, top, left, a).add_(seen(back_KP, top, right, b)).mul_(c)
        lower = seen(back_KP, bottom, left, a).add_(seen(back_KP, bottom, right, b)).mul_(d)
        miss += flow_KHW.double().add_(upper.add_(lower).float()).square_()
        length += back_KHW.double().square_()
    there = flows_K2HW[:, 0].double().square_().add_(flows_K2HW[:, 1].double().square_()).sqrt_()
    return miss.sqrt_() > there.add_(length.sqrt_()).mul_(0.01).add_(0.5)


def _through_unit_range(coordinate: Tensor, side: int) -> Tensor:
    """The same float32 coordinate, rounded by the way to -1..1 and back; changed in place."""
    # A tensor: by a plain number the device would multiply with its inverse.
    last = torch.full((1,), float(max(side - 1, 1)), device=coordinate.device)
    return coordinate.mul_(2).div_(last).sub_(1).add_(1).mul_(0.5).mul_(last)


def _corners(coordinate: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels on both sides of a float32 coordinate and their shares (float64).

    One outside has the share 0 and is the first.
    """
    # Clamped to where both are outside.
    coordinate = coordinate.clamp_(-2, side)
    first = coordinate.floor()
    share = coordinate.double().sub_(first)
    inside = (first >= 0) & (first < side), (first >= -1) & (first < side - 1)
    near = (1 - share).masked_fill_(~inside[0], 0)
    far = share.masked_fill_(~inside[1], 0)
    return (
        first.masked_fill(~inside[0], 0).long(),
        (first + 1).masked_fill_(~inside[1], 0).long(),
        near,
        far,
    )
