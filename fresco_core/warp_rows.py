"""The warps of a batch as fixed sparse matrices: every output row is a few weighted input rows.

The flow of a batch is the same for all channels, iterations and steps, so a bilinear warp of tokens
kept one after the other (channels last) is a gather of four rows, and its transpose, which its
gradient needs, a gather of however many rows were read from that token. Neither needs atomics, so
the result is the same in every run.

Shapes: N ring pairs, h x w grid, P = h * w tokens in raster order, E entries.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fresco_core.correspondence import Correspondence


@dataclass(frozen=True, eq=False)
class WarpRows:
    """A warp of each ring pair, and its transpose with the rows' masks applied.

    Attributes:
        mask: (N,P) float32, 0 where the output row does not count.
        token: (N,P,4) int32, input tokens of an output row.
        weight: (N,P,4) float32, their weights; 0 for what lies outside the picture.
        start: (N,P+1) int32; the output rows that read token p are ``start[p]`` to
            ``start[p + 1] - 1`` of ``row``.
        row: (N,4P) int32.
        row_weight: (N,4P) float32, their weights times their masks.
    """

    mask: Tensor
    token: Tensor
    weight: Tensor
    start: Tensor
    row: Tensor
    row_weight: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in the order of the attributes."""
        return self.mask, self.token, self.weight, self.start, self.row, self.row_weight


def bilinear_rows(flow_N2hw: Tensor) -> tuple[Tensor, Tensor]:
    """What `correspondence.warp` (bilinear) reads: `WarpRows.token` and `WarpRows.weight`.

    Args:
        flow_N2hw: float32, on the grid of the output, in tokens.
    """
    height, width = flow_N2hw.shape[-2:]
    device = flow_N2hw.device
    # `grid_sample` sees no extent along an axis of one token: everything lies on it.
    x_Nhw = torch.arange(width, device=device) + flow_N2hw[:, 0] * (width > 1)
    y_Nhw = torch.arange(height, device=device)[:, None] + flow_N2hw[:, 1] * (height > 1)
    left_Nhw, top_Nhw = x_Nhw.floor(), y_Nhw.floor()
    columns = torch.stack((left_Nhw, left_Nhw + 1, left_Nhw, left_Nhw + 1), -1).flatten(1, 2)
    rows = torch.stack((top_Nhw, top_Nhw, top_Nhw + 1, top_Nhw + 1), -1).flatten(1, 2)
    across_NP4 = 1 - (x_Nhw.flatten(1)[..., None] - columns).abs()
    down_NP4 = 1 - (y_Nhw.flatten(1)[..., None] - rows).abs()
    inside_NP4 = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    weight_NP4 = torch.where(inside_NP4, across_NP4 * down_NP4, 0)
    token_NP4 = torch.where(inside_NP4, rows * width + columns, 0).int()
    return token_NP4.contiguous(), weight_NP4.contiguous()


def warp_rows(flow_N2hw: Tensor, occluded_N1hw: Tensor) -> WarpRows:
    """What `correspondence.warp` (bilinear) does, as rows.

    Args:
        flow_N2hw: float32, on the grid of the output, in tokens.
        occluded_N1hw: float32, 1 where the output does not count.
    """
    token_NP4, weight_NP4 = bilinear_rows(flow_N2hw)
    count, tokens, _ = token_NP4.shape
    device = flow_N2hw.device
    mask_NP = 1 - occluded_N1hw.flatten(1)

    # Entries without weight go behind all tokens, where nobody looks.
    reads_NE = torch.where(weight_NP4 > 0, token_NP4, tokens).flatten(1)
    sorted_NE, order_NE = reads_NE.sort(dim=1, stable=True)
    tokens_NQ = torch.arange(tokens + 1, device=device, dtype=sorted_NE.dtype).expand(count, -1)
    start_NQ = torch.searchsorted(sorted_NE, tokens_NQ.contiguous())
    row_weight_NE = (weight_NP4 * mask_NP[..., None]).flatten(1).gather(1, order_NE)
    return WarpRows(
        mask_NP.contiguous(),
        token_NP4,
        weight_NP4,
        start_NQ.int().contiguous(),
        (order_NE // 4).int().contiguous(),
        row_weight_NE.contiguous(),
    )


def ring_rows(correspondence: Correspondence, rows: int) -> tuple[WarpRows, WarpRows]:
    """Backward and forward warps of a batch on a grid of so many rows.

    Entry i of the backward ones makes frame i look like its successor, entry i of the forward ones
    the successor like frame i.
    """
    on_grid = correspondence.on_grid(rows)
    return (
        warp_rows(on_grid.backward_flows, on_grid.backward_occlusions),
        warp_rows(on_grid.forward_flows, on_grid.forward_occlusions),
    )
