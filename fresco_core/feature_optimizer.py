"""The feature optimisation on a GPU: fused kernels, all iterations captured in one CUDA graph.

Does what `optimization.optimize_features` does, with gradients of its own: the loss of token
correlations has a sign as its derivative, so its gradient is ``2 sign(G - R) v``, two matrix
products in half precision; the temporal loss is a gather of signs (`warp_rows`).

Shapes: N frames, K copies of them, B = K * N samples, C channels, h x w grid, P = h * w tokens.
"""

from collections import OrderedDict

import torch
from torch import Tensor

from fresco_core.correspondence import Correspondence
from fresco_core.feature_kernels import adam_step, gram_signs, warp_signs
from fresco_core.optimization import TEMPORAL_WEIGHT, match_statistics
from fresco_core.options import OptimizationOptions
from fresco_core.warp_rows import WarpRows, ring_rows

HALF = torch.float16  # unit vectors lose nothing by its range, and gain its precision
TILE, DEPTH = 128, 64
# Signs of so many bytes at once: enough to fill a device, however large the pictures.
SIGNS_BYTES = 128 << 20
_PUBLISHED = OptimizationOptions()
# The decoder's levels, at one size of pictures and batch.
KEPT = 4


class FeatureOptimizers:
    """`optimize_features` on a GPU: an optimizer for each shape, those least used forgotten."""

    def __init__(self) -> None:
        self._optimizers: OrderedDict[object, FeatureOptimizer] = OrderedDict()

    def __call__(
        self,
        feature_BChw: Tensor,
        *,
        reference_BPC: Tensor | None = None,
        correspondence: Correspondence | None = None,
        options: OptimizationOptions = _PUBLISHED,
    ) -> Tensor:
        """See `optimization.optimize_features`."""
        if options.spatial_weight == 0:
            reference_BPC = None
        if (reference_BPC is None and correspondence is None) or feature_BChw[0, 0].numel() < 2:
            return feature_BChw
        samples, channels, rows, columns = feature_BChw.shape
        frames = len(correspondence.forward_flows) if correspondence is not None else 1
        spatial, temporal = reference_BPC is not None, correspondence is not None
        key = (tuple(feature_BChw.shape), frames, options, spatial, temporal)
        optimizer = self._optimizers.pop(key, None)
        if optimizer is None:
            while len(self._optimizers) >= KEPT:
                self._optimizers.popitem(last=False)
            optimizer = FeatureOptimizer(
                (samples, channels, rows, columns),
                frames,
                options,
                feature_BChw.device,
                spatial=spatial,
                temporal=temporal,
            )
        self._optimizers[key] = optimizer
        optimizer.set_batch(reference_BPC, correspondence, rows)
        start_BPC = feature_BChw.permute(0, 2, 3, 1).flatten(1, 2)
        found_BPC = optimizer.run(start_BPC)

        def in_rows(tokens_BPC: Tensor) -> Tensor:
            return tokens_BPC.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)

        out_BChw = match_statistics(in_rows(found_BPC), feature_BChw.float())
        return out_BChw.to(feature_BChw.dtype)


class FeatureOptimizer:
    """The optimisation of features of one shape, on one device.

    Holds all memory that it needs, about 40 bytes a value and `SIGNS_BYTES`.
    """

    def __init__(
        self,
        shape_BChw: tuple[int, int, int, int],
        frames: int,
        options: OptimizationOptions,
        device: torch.device,
        *,
        spatial: bool,
        temporal: bool,
        graph: bool = True,
    ) -> None:
        samples, channels, rows, columns = shape_BChw
        tokens = rows * columns
        self.shape = samples, tokens, channels
        self.frames, self.options = frames, options
        self.spatial, self.temporal = spatial, temporal

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.feature_BPC, self.mean_BPC, self.square_BPC = (empty(*self.shape) for _ in range(3))
        self.length_BP = empty(samples, tokens)
        spatial_shape = self.shape if spatial else (1, 1, 1)
        self.tokens_BPC, self.reference_BPC, self.gram_BPC = (
            empty(*spatial_shape, dtype=HALF) for _ in range(3)
        )
        at_once = max(1, SIGNS_BYTES // (2 * tokens * tokens))
        side = tokens if spatial else 1
        self.gram_signs_bPP = empty(min(samples, at_once), side, side, dtype=HALF)
        signs_shape = self.shape if temporal else (1, 1, 1)
        self.back_signs_BPC, self.fore_signs_BPC = (
            empty(*signs_shape, dtype=torch.int8) for _ in range(2)
        )
        self.back, self.fore = (
            WarpRows(
                empty(frames, tokens),
                empty(frames, tokens, 4, dtype=torch.int32),
                empty(frames, tokens, 4),
                empty(frames, tokens + 1, dtype=torch.int32),
                empty(frames, 4 * tokens, dtype=torch.int32),
                empty(frames, 4 * tokens),
            )
            for _ in range(2)
        )
        self._reference: Tensor | None = None
        self._correspondence: Correspondence | None = None
        self._graph = self._captured() if graph else None

    def set_batch(
        self, reference_BPC: Tensor | None, correspondence: Correspondence | None, rows: int
    ) -> None:
        """Take what stays the same for a batch; nothing happens where it was taken before."""
        if self._reference is not reference_BPC and reference_BPC is not None:
            self.reference_BPC.copy_(reference_BPC)
        if self._correspondence is not correspondence and correspondence is not None:
            given = ring_rows(correspondence, rows)
            for mine, theirs in zip((self.back, self.fore), given, strict=True):
                for place, tensor in zip(mine.tensors(), theirs.tensors(), strict=True):
                    place.copy_(tensor)
        self._reference, self._correspondence = reference_BPC, correspondence

    def run(self, feature_BPC: Tensor) -> Tensor:
        """Optimise; float32 (B,P,C), valid until the next call."""
        self.feature_BPC.copy_(feature_BPC)
        if self._graph is None:
            self._iterate()
        else:
            self._graph.replay()
        return self.feature_BPC

    def _captured(self) -> torch.cuda.CUDAGraph:
        self._iterate()  # compiles the kernels, which a capture could not
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._iterate()
        return graph

    def _iterate(self) -> None:
        if self.spatial:
            length_BP1 = self.feature_BPC.norm(dim=2, keepdim=True).clamp_min(1e-20)
            self.length_BP.copy_(length_BP1[..., 0])
            self.tokens_BPC.copy_(self.feature_BPC / length_BP1)
        for iteration in range(1, self.options.iterations + 1):
            if self.spatial:
                self._correlate()
            if self.temporal:
                self._compare()
            self._step(iteration)

    def _correlate(self) -> None:
        samples, tokens, channels = self.shape
        tiles = -(-tokens // TILE)
        for some in torch.arange(samples).split(len(self.gram_signs_bPP)):
            chosen = slice(int(some[0]), int(some[-1]) + 1)
            signs_bPP = self.gram_signs_bPP[: len(some)]
            gram_signs[(tiles * (tiles + 1) // 2, len(some))](
                self.tokens_BPC[chosen],
                self.reference_BPC[chosen],
                signs_bPP,
                tokens,
                channels,
                tiles,
                BLOCK=TILE,
                DEPTH=DEPTH,
                num_warps=8,
                num_stages=3,
            )
            torch.bmm(signs_bPP, self.tokens_BPC[chosen], out=self.gram_BPC[chosen])

    def _compare(self) -> None:
        samples, tokens, channels = self.shape
        warp_signs[(tokens, samples)](
            self.feature_BPC,
            *(self.back.mask, self.back.token, self.back.weight),
            *(self.fore.mask, self.fore.token, self.fore.weight),
            self.back_signs_BPC,
            self.fore_signs_BPC,
            self.frames,
            tokens,
            channels,
            WIDTH=_power_of_two(channels),
        )

    def _step(self, iteration: int) -> None:
        samples, tokens, channels = self.shape
        adam_step[(tokens, samples)](
            self.feature_BPC,
            self.mean_BPC,
            self.square_BPC,
            self.tokens_BPC,
            self.length_BP,
            self.gram_BPC,
            *(self.back.mask, self.back.start, self.back.row, self.back.row_weight),
            self.back_signs_BPC,
            *(self.fore.mask, self.fore.start, self.fore.row, self.fore.row_weight),
            self.fore_signs_BPC,
            2 * self.options.spatial_weight / (samples * tokens * tokens),
            TEMPORAL_WEIGHT / (samples * tokens * channels),
            self.options.learning_rate,
            1 - 0.9**iteration,
            1 - 0.999**iteration,
            self.frames,
            tokens,
            channels,
            WIDTH=_power_of_two(channels),
            FIRST=iteration == 1,
            SPATIAL=self.spatial,
            TEMPORAL=self.temporal,
        )


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
