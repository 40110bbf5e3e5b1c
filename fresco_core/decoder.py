"""The inputs of a UNet's decoder levels: recorded in the reference pass, constrained in sampling.

Source: FRESCO (Yang et al., CVPR 2024), section 3.3.

Shapes: B = 2N samples (classifier-free guidance doubles the N frames), C channels, h x w grid,
P = h * w tokens.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Transform = Callable[[int, Tensor], Tensor]


class DecoderLevels:
    """Sees, and may replace, the tensor that enters each decoder level of a diffusers UNet.

    That tensor has the ControlNet's middle residual in it, but no skip connections yet.
    """

    def __init__(self, unet: nn.Module) -> None:
        self._transform: Transform | None = None
        for level, block in enumerate(unet.up_blocks):  # type: ignore[arg-type]
            block.register_forward_pre_hook(self._hook(level), with_kwargs=True)

    @contextmanager
    def passing_through(self, transform: Transform) -> Iterator[None]:
        """Within, each level's input (B,C,h,w) becomes `transform(level, input)`."""
        self._transform = transform
        try:
            yield
        finally:
            self._transform = None

    @contextmanager
    def recording(self) -> Iterator[dict[int, Tensor]]:
        """Within, each level's input is kept in the dict that this yields."""
        inputs: dict[int, Tensor] = {}

        def keep(level: int, feature_BChw: Tensor) -> Tensor:
            inputs[level] = feature_BChw.clone()
            return feature_BChw

        with self.passing_through(keep):
            yield inputs

    def _hook(self, level: int) -> Callable[..., Any]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self._transform is None:
                return None
            if args:
                return (self._transform(level, args[0]), *args[1:]), kwargs
            feature_BChw = self._transform(level, kwargs["hidden_states"])
            return args, {**kwargs, "hidden_states": feature_BChw}

        return hook
