"""The feature optimisation on a GPU: fused kernels, all iterations captured in one CUDA graph.

Does what `optimization.optimize_features` does, with gradients of its own: the loss of token
correlations has a sign as its derivative, so its gradient is ``2 sign(G - R) v``, two matrix
products in half precision; the temporal loss is a gather of signs (`warp_rows`). On grids of few
tokens, where each correlation counts and none costs time, the products are in float32.

Shapes: N frames, K copies of them, B = K * N samples, C channels, h x w grid, P = h * w tokens.
"""

import weakref
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import triton
from torch import Tensor

from fresco_core.correspondence import Correspondence
from fresco_core.feature_kernels import adam_step, gram_signs, warp_signs
from fresco_core.launching import OPTIONS
from fresco_core.optimization import TEMPORAL_WEIGHT, correlation
from fresco_core.options import OptimizationOptions
from fresco_core.warp_rows import WarpRows, ring_rows

_Object = TypeVar("_Object")
HALF = torch.float16  # unit vectors lose nothing by its range, and gain its precision
TILE = 128
# Up to so many tokens correlations are kept, in float32. Half precision let the loss of 8 x 8
# tokens end up to 1.1 % higher.
FEW = 128
# Signs of so many bytes at once: enough to fill a device, however large the pictures.
SIGNS_BYTES = 128 << 20


@dataclass(eq=False)
class _Scratch:
    """What is needed only while it runs; see `feature_kernels`."""

    mean_BPC: Tensor
    square_BPC: Tensor
    length_BP: Tensor
    tokens_BPC: Tensor
    gram_BPC: Tensor
    gram_signs_bPP: Tensor
    target_BPP: Tensor | None
    back_signs_BPC: Tensor
    fore_signs_BPC: Tensor


class FeatureOptimizer:
    """The optimisation of features of one shape, on one device.

    Holds 6 bytes a value; 14 more, and `SIGNS_BYTES` (or one sample's signs, 2 bytes for each pair
    of tokens, where that is more), are taken from the pool of CUDA graphs, which optimisers that
    never run at the same time may share. On grids of few tokens it is 8, 18, and 8 bytes for each
    pair of tokens of every sample.
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
        pool: Any = None,
    ) -> None:
        """Compile the kernels and capture the iterations.

        Args:
            pool: of the graphs whose memory this one shares; what `run` gives is then valid until
                another of them runs.
        """
        samples, channels, rows, columns = shape_BChw
        tokens = rows * columns
        self.shape = samples, tokens, channels
        self.frames, self.options = frames, options
        self.spatial, self.temporal = spatial, temporal

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.feature_BPC = empty(*self.shape)
        self._precision = torch.float32 if tokens <= FEW else HALF
        reference_shape = self.shape if spatial else (1, 1, 1)
        self.reference_BPC = empty(*reference_shape, dtype=self._precision)
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
        self._depth, self._stages = _tiling(device)
        # Of the batch: whoever translates it decides how long they live.
        self._reference: weakref.ref[Tensor] | None = None
        self._correspondence: weakref.ref[Correspondence] | None = None
        self._graph = self._captured(pool) if graph else None

    def set_batch(
        self, reference_BPC: Tensor | None, correspondence: Correspondence | None, rows: int
    ) -> None:
        """Take what stays the same for a batch; nothing happens where it was taken before."""
        if reference_BPC is not None and not _is(self._reference, reference_BPC):
            self.reference_BPC.copy_(reference_BPC)
            self._reference = weakref.ref(reference_BPC)
        if correspondence is not None and not _is(self._correspondence, correspondence):
            given = ring_rows(correspondence, rows)
            for mine, theirs in zip((self.back, self.fore), given, strict=True):
                for place, tensor in zip(mine.tensors(), theirs.tensors(), strict=True):
                    place.copy_(tensor)
            self._correspondence = weakref.ref(correspondence)

    def run(self, feature_BPC: Tensor) -> Tensor:
        """Optimise; float32 (B,P,C), valid until the next call."""
        self.feature_BPC.copy_(feature_BPC)
        if self._graph is None:
            self._iterate()
        else:
            self._graph.replay()
        return self.feature_BPC

    def _captured(self, pool: Any) -> torch.cuda.CUDAGraph:
        self._iterate()  # compiles the kernels, which a capture could not
        graph = torch.cuda.CUDAGraph()
        # By other threads' calls to CUDA, too, a capture of mode "global" would fail.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            self._iterate()
        return graph

    def _scratch(self) -> _Scratch:
        samples, tokens, _ = self.shape
        empty = self.feature_BPC.new_empty
        spatial_shape = self.shape if self.spatial else (1, 1, 1)
        signs_shape = self.shape if self.temporal else (1, 1, 1)
        side = tokens if self.spatial else 1
        precision = self._precision
        kept = self.spatial and precision != HALF
        at_once = samples if kept else min(samples, max(1, SIGNS_BYTES // (2 * tokens * tokens)))
        return _Scratch(
            mean_BPC=empty(self.shape),
            square_BPC=empty(self.shape),
            length_BP=empty((samples, tokens)),
            tokens_BPC=empty(spatial_shape, dtype=precision),
            gram_BPC=empty(spatial_shape, dtype=precision),
            gram_signs_bPP=empty((at_once, side, side), dtype=precision),
            target_BPP=correlation(self.reference_BPC) if kept else None,
            back_signs_BPC=empty(signs_shape, dtype=torch.int8),
            fore_signs_BPC=empty(signs_shape, dtype=torch.int8),
        )

    def _iterate(self) -> None:
        scratch = self._scratch()
        if self.spatial:
            length_BP1 = self.feature_BPC.norm(dim=2, keepdim=True).clamp_min(1e-20)
            scratch.length_BP.copy_(length_BP1[..., 0])
            scratch.tokens_BPC.copy_(self.feature_BPC / length_BP1)
        for iteration in range(1, self.options.iterations + 1):
            if self.spatial:
                self._correlate(scratch)
            if self.temporal:
                self._compare(scratch)
            self._step(scratch, iteration)

    def _correlate(self, scratch: _Scratch) -> None:
        if scratch.target_BPP is not None:
            signs_BPP = scratch.gram_signs_bPP
            torch.bmm(scratch.tokens_BPC, scratch.tokens_BPC.mT, out=signs_BPP)
            signs_BPP.sub_(scratch.target_BPP).sign_()
            torch.bmm(signs_BPP, scratch.tokens_BPC, out=scratch.gram_BPC)
            return
        samples, tokens, channels = self.shape
        tiles = -(-tokens // TILE)
        for some in torch.arange(samples).split(len(scratch.gram_signs_bPP)):
            chosen = slice(int(some[0]), int(some[-1]) + 1)
            signs_bPP = scratch.gram_signs_bPP[: len(some)]
            gram_signs[(tiles * (tiles + 1) // 2, len(some))](
                scratch.tokens_BPC[chosen],
                self.reference_BPC[chosen],
                signs_bPP,
                tokens,
                channels,
                tiles,
                BLOCK=TILE,
                DEPTH=self._depth,
                num_warps=8,
                num_stages=self._stages,
                **OPTIONS,
            )
            torch.bmm(signs_bPP, scratch.tokens_BPC[chosen], out=scratch.gram_BPC[chosen])

    def _compare(self, scratch: _Scratch) -> None:
        samples, tokens, channels = self.shape
        warp_signs[(tokens, samples)](
            self.feature_BPC,
            *(self.back.mask, self.back.token, self.back.weight),
            *(self.fore.mask, self.fore.token, self.fore.weight),
            scratch.back_signs_BPC,
            scratch.fore_signs_BPC,
            self.frames,
            tokens,
            channels,
            WIDTH=triton.next_power_of_2(channels),
            **OPTIONS,
        )

    def _step(self, scratch: _Scratch, iteration: int) -> None:
        samples, tokens, channels = self.shape
        adam_step[(tokens, samples)](
            self.feature_BPC,
            scratch.mean_BPC,
            scratch.square_BPC,
            scratch.tokens_BPC,
            scratch.length_BP,
            scratch.gram_BPC,
            *(self.back.mask, self.back.start, self.back.row, self.back.row_weight),
            scratch.back_signs_BPC,
            *(self.fore.mask, self.fore.start, self.fore.row, self.fore.row_weight),
            scratch.fore_signs_BPC,
            2 * self.options.spatial_weight / (samples * tokens * tokens),
            TEMPORAL_WEIGHT / (samples * tokens * channels),
            self.options.learning_rate,
            1 - 0.9**iteration,
            1 - 0.999**iteration,
            self.frames,
            tokens,
            channels,
            WIDTH=triton.next_power_of_2(channels),
            FIRST=iteration == 1,
            SPATIAL=self.spatial,
            TEMPORAL=self.temporal,
            **OPTIONS,
        )


def _is(known: "weakref.ref[_Object] | None", given: _Object) -> bool:
    return known is not None and known() is given


def _tiling(device: torch.device) -> tuple[int, int]:
    """Depth of a tile, and how many of them a multiprocessor's shared memory takes at once."""
    if device.type != "cuda":
        return 32, 2
    available = torch.cuda.get_device_properties(device).shared_memory_per_block_optin
    for depth, stages in ((64, 3), (64, 2), (32, 2)):
        if 4 * TILE * depth * HALF.itemsize * stages <= available:
            return depth, stages
    return 16, 2
