"""GPU kernels compiled for cards that this machine need not have: nothing may need the newest one.

Whoever starts a kernel does so as ever, with the sizes of Stable Diffusion 1.5, but on tensors of
the CPU: it is compiled to machine code for a card, and not run.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fresco_core import feature_optimizer
from fresco_core.correspondence import Trajectories
from fresco_core.layers import Layers
from fresco_core.options import OptimizationOptions
from fresco_core.propagation.effort import Effort
from fresco_core.propagation.gpu.batch_painter import BatchPainter

pytest.importorskip("triton")

# Bytes of shared memory that a block may have, by compute capability: A100, A6000, H100.
SHARED = {80: 163 << 10, 86: 99 << 10, 90: 227 << 10}
KERNELS = {
    *("chunk_moments", "group_factors", "scaled", "normalised_rows"),
    *("added_rows", "gated", "doubled"),
    *("_mix", "_blend", "gram_signs", "warp_signs", "adam_step"),
    *("_vote", "_show", "_spread", "_cover", "_measure", "_sweep"),
}
HALF = torch.float16


class Card:
    """A driver of Triton's that knows what to compile for, and no more."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return self.capability  # by which Triton keeps what it has compiled

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)


@pytest.fixture(params=SHARED)
def compiled(request: pytest.FixtureRequest) -> Iterator[dict[str, list[Any]]]:
    """What has been compiled so far for a card, by kernel."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    found: dict[str, list[Any]] = {}
    original = JITFunction.run

    def compile_alone(self: Any, *args: Any, **named: Any) -> None:
        kernel = original(self, *args, **{**named, "warmup": True})
        found.setdefault(self.fn.__name__, []).append(kernel)

    properties = SimpleNamespace(shared_memory_per_block_optin=SHARED[request.param])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JITFunction, "run", compile_alone)
        patch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        before = dict(vars(driver))
        driver.set_active(Card(request.param))
        yield found
        # Not `reset_active`, which wants a GPU.
        vars(driver).clear()
        vars(driver).update(before)


def start_layers() -> None:
    layers = Layers()
    sample = torch.zeros(2, 320, 8, 8, dtype=HALF).contiguous(memory_format=torch.channels_last)
    norm = nn.GroupNorm(32, 320).half()
    layers.group_norm(sample, norm, torch.zeros(2, 320, dtype=HALF), silu=True)
    layers.group_norm(sample, norm)
    for channels in (320, 1280):
        rows = torch.zeros(2, 64, channels, dtype=HALF)
        layers.layer_norm(rows, nn.LayerNorm(channels).half())
    layers.add(sample, sample, torch.zeros(320, dtype=HALF))
    layers.double(sample)
    layers.gate(torch.zeros(2, 64, 2560, dtype=HALF))


def start_attention() -> None:
    from fresco_core.attention_kernels import mix_along_paths

    for depth in (40, 80):  # of a head, on either hooked level
        given = torch.zeros(16, 8, 16, depth, dtype=HALF)
        forward = torch.zeros(8, 16, dtype=torch.long)
        linked = torch.ones(16, 8, 8, dtype=torch.bool)
        mix_along_paths(given, given, given, Trajectories(forward, forward, linked), 1.0)


def start_smoothing() -> None:
    from fresco_core.smoothing_kernels import blend_rows

    for channels in (3, 640):
        rows = torch.zeros(2, 64, channels)
        blend_rows(
            rows, rows, torch.zeros(64, 4, dtype=torch.int32), torch.zeros(64, 4), torch.zeros(64)
        )


def start_optimisation(monkeypatch: pytest.MonkeyPatch) -> None:
    tiling = feature_optimizer._tiling(torch.device("cuda"))
    monkeypatch.setattr(feature_optimizer, "_tiling", lambda device: tiling)
    for side in (8, 16):  # with correlations in float32 and in half precision
        optimizer = feature_optimizer.FeatureOptimizer(
            (4, 640, side, side),
            2,
            OptimizationOptions(iterations=1),
            torch.device("cpu"),
            spatial=True,
            temporal=True,
            graph=False,
        )
        optimizer.run(torch.zeros(4, side * side, 640))


def start_synthesis() -> None:
    from fresco_core.propagation.gpu import kernels

    picture = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    painter = BatchPainter(picture, [picture] * 4, [6.0, 0.5, 2.0, 2.0], engine=kernels)
    painter.paint([picture] * 4, Effort(1, 1, 0, 1.0))


def test_all_kernels_fit(
    compiled: dict[str, list[Any]], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_layers()
    start_attention()
    start_smoothing()
    start_optimisation(monkeypatch)
    start_synthesis()
    assert compiled.keys() == KERNELS
    shared = SHARED[request.node.callspec.params["compiled"]]
    for name, kernels in compiled.items():
        for kernel in kernels:
            assert len(kernel.asm["cubin"]) > 0, name
            assert kernel.metadata.shared <= shared, name
