"""`optimize_features` by fused GPU kernels, or without them where they cannot be built.

Shapes: B samples, C channels, h x w grid, P = h * w tokens.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fresco_core.correspondence import Correspondence
from fresco_core.fallback import Fallback
from fresco_core.optimization import holding, match_statistics, optimize_features
from fresco_core.options import OptimizationOptions

if TYPE_CHECKING:
    from fresco_core.feature_optimizer import FeatureOptimizer

_PUBLISHED = OptimizationOptions()
# The decoder's levels, at two sizes: that of most windows and that of a clip's last one.
KEPT = 8


class FusedOptimization:
    """A `feature_optimizer.FeatureOptimizer` for each shape, those least used forgotten.

    Where the kernels cannot be built, a warning says so once and the plain form does the work.
    """

    def __init__(self) -> None:
        self._optimizers: OrderedDict[object, FeatureOptimizer] = OrderedDict()
        self._pool: Any = None  # one of their graphs runs at a time
        self._fallback = Fallback("feature optimisation")

    def __call__(
        self,
        feature_BChw: Tensor,
        *,
        reference_BPC: Tensor | None = None,
        correspondence: Correspondence | None = None,
        options: OptimizationOptions = _PUBLISHED,
    ) -> Tensor:
        """See `optimization.optimize_features`."""
        reference_BPC, correspondence = holding(
            feature_BChw, reference_BPC, correspondence, options
        )
        if reference_BPC is None and correspondence is None:
            return feature_BChw
        return self._fallback(
            lambda: self._fused(feature_BChw, reference_BPC, correspondence, options),
            lambda: self._plain(feature_BChw, reference_BPC, correspondence, options),
        )

    def clear(self) -> None:
        """Give back the memory of all optimisers."""
        self._optimizers.clear()
        self._pool = None  # PyTorch may refuse one that all graphs have left

    def _plain(
        self,
        feature_BChw: Tensor,
        reference_BPC: Tensor | None,
        correspondence: Correspondence | None,
        options: OptimizationOptions,
    ) -> Tensor:
        self.clear()  # nobody uses their memory any more
        return optimize_features(
            feature_BChw,
            reference_BPC=reference_BPC,
            correspondence=correspondence,
            options=options,
        )

    def _fused(
        self,
        feature_BChw: Tensor,
        reference_BPC: Tensor | None,
        correspondence: Correspondence | None,
        options: OptimizationOptions,
    ) -> Tensor:
        frames = len(correspondence.forward_flows) if correspondence is not None else 1
        has_both = reference_BPC is not None, correspondence is not None
        key = (tuple(feature_BChw.shape), frames, options, has_both)
        optimizer = self._optimizers.pop(key, None)
        if optimizer is None:
            # Only here: what it needs is not on every machine.
            from fresco_core.feature_optimizer import FeatureOptimizer

            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            while len(self._optimizers) >= KEPT:
                self._optimizers.popitem(last=False)
            samples, channels, rows, columns = feature_BChw.shape
            optimizer = FeatureOptimizer(
                (samples, channels, rows, columns),
                frames,
                options,
                feature_BChw.device,
                spatial=reference_BPC is not None,
                temporal=correspondence is not None,
                pool=self._pool,
            )
        self._optimizers[key] = optimizer
        rows, columns = feature_BChw.shape[-2:]
        optimizer.set_batch(reference_BPC, correspondence, rows)
        start_BPC = feature_BChw.permute(0, 2, 3, 1).flatten(1, 2)
        found_BPC = optimizer.run(start_BPC)
        found_BChw = found_BPC.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        return match_statistics(found_BChw, feature_BChw.float()).to(feature_BChw.dtype)
