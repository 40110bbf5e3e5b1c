"""Painting chains together: what it finds, and that none depends on the others."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from fresco_core.propagation.effort import DEVICE_QUALITIES, QUALITIES, Effort
from fresco_core.propagation.gpu.batch_painter import BatchPainter
from fresco_core.propagation.painter import Painter

EFFORT = Effort(3, 2, 1, 1.0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: threads only wait for each other."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


def pictures(chains: int, height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    """Smooth ones."""
    maker = torch.Generator().manual_seed(seed)
    coarse = torch.rand(chains, channels, height // 4, width // 4, generator=maker)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return (255 * smooth.clamp(0, 1)).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def scene(chains: int, side: int = 24) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Styles, and a guide whose target is its source, moved."""
    source = pictures(chains, side, side + 6, seed=1)
    return 255 - source.flip(3), [source], [source.roll((2, -3), (1, 2))]


def test_a_moved_guide_moves_the_style() -> None:
    styles, sources, targets = scene(2)
    painter = BatchPainter(styles, sources, [2.0])
    images, errors = painter.paint(targets, Effort(6, 2, 1, 1.0), 0)
    wanted = styles.roll((2, -3), (1, 2))
    inner = (slice(None), slice(5, -5), slice(6, -6))
    assert images.dtype == torch.uint8
    assert images.shape == styles.shape
    assert errors.dtype == torch.float32
    assert errors.shape == styles.shape[:3]
    assert (images[inner].int() - wanted[inner].int()).abs().float().mean() < 2


def test_as_good_as_on_the_cpu() -> None:
    styles, sources, targets = scene(1, 40)
    noise = torch.randint(-9, 10, targets[0].shape, generator=torch.Generator().manual_seed(0))
    targets = [(targets[0].int() + noise).clamp(0, 255).to(torch.uint8)]
    effort = DEVICE_QUALITIES["balanced"]
    errors = BatchPainter(styles, sources, [2.0]).paint(targets, effort, 0)[1]
    painter = Painter(styles[0].numpy(), [sources[0][0].numpy()], [2.0], (40, 46))
    wanted = painter.paint([targets[0][0].numpy()], QUALITIES["balanced"], 0).error_HW
    assert float(errors.mean()) <= 1.02 * float(wanted.mean())


def test_chains_do_not_depend_on_each_other() -> None:
    styles, sources, targets = scene(3, 16)
    painter = BatchPainter(styles, sources, [2.0])
    images, errors = painter.paint(targets, EFFORT, 5)
    chains = torch.tensor([2, 0])
    some = painter.paint([target[chains] for target in targets], EFFORT, 5, chains=chains)
    assert torch.equal(some[0], images[chains])
    assert torch.equal(some[1], errors[chains])
    alone = BatchPainter(styles[1:2], [sources[0][1:2]], [2.0])
    assert torch.equal(alone.paint([targets[0][1:2]], EFFORT, 5)[0][0], images[1])
    assert not torch.equal(painter.paint(targets, EFFORT, 6)[1], errors)


def test_errors_are_those_of_the_picture_before_the_last_vote() -> None:
    """With a style of no weight they are those of the guides, whatever is painted."""
    styles, sources, targets = scene(1)
    painter = BatchPainter(styles, sources, [3.0], style_weight=0.0, uniformity=0.0, patch=1)
    images, errors = painter.paint(targets, Effort(2, 4), 0)
    # A patch of one pixel: the image is the style at the pixel whose guide has this error.
    source, style = sources[0].flatten(0, 2).int(), styles.flatten(0, 2)
    for place in (0, 17, 333):
        target = targets[0].flatten(0, 2)[place].int()
        squares = ((source - target) ** 2).sum(1).float()
        at = int(torch.nonzero((style == images.flatten(0, 2)[place]).all(1))[0])
        assert float(errors.flatten()[place]) == pytest.approx(float(squares[at]), abs=0.1)


def test_uniformity_spreads_the_source() -> None:
    styles, sources, targets = scene(1)
    flat = [torch.full_like(target, 90) for target in targets]
    used = []
    for uniformity in (0.0, 20000.0):
        painter = BatchPainter(styles, sources, [2.0], uniformity=uniformity)
        used.append(len(painter.paint(flat, EFFORT, 0)[0].flatten(0, 2).unique(dim=0)))
    assert used[1] > used[0]


def test_other_sizes_and_grey_styles() -> None:
    styles, sources = pictures(2, 16, 20, 1), [pictures(2, 16, 20, 1), pictures(2, 16, 20, 4)]
    targets = [pictures(2, 25, 13, 1, seed=2), pictures(2, 25, 13, 4, seed=2)]
    images, errors = BatchPainter(styles, sources, [1.0, 2.0], patch=7).paint(targets, EFFORT, 0)
    assert images.shape == (2, 25, 13, 1)
    assert bool(errors.isfinite().all())
    low, high = styles.flatten(1).aminmax(dim=1)
    assert bool(((images >= low.view(2, 1, 1, 1)) & (images <= high.view(2, 1, 1, 1))).all())


@pytest.mark.parametrize(
    ("channels", "sources", "patch", "words"),
    [
        (3, [], 5, "at least one guide"),
        (3, [pictures(2, 16, 16)], 5, "guide sources"),
        (5, [pictures(1, 16, 16)], 5, "more than 4 channels"),
        (3, [pictures(1, 16, 16)], 4, "patch must be odd"),
        (3, [pictures(1, 16, 16)], 17, "patch must be odd"),
    ],
)
def test_what_cannot_be_painted_from(
    channels: int, sources: list[Tensor], patch: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        BatchPainter(pictures(1, 16, 16, channels), sources, [1.0], patch=patch)


@pytest.mark.parametrize("target", [pictures(2, 16, 16), pictures(1, 16, 16, 1)])
def test_targets_that_do_not_fit(target: Tensor) -> None:
    painter = BatchPainter(pictures(1, 16, 16), [pictures(1, 16, 16)], [1.0])
    with pytest.raises(ValueError, match="guide targets"):
        painter.paint([target], EFFORT, 0)


INTERPRETED = """
import copy, dataclasses, torch
from fresco_core.propagation.gpu import batch_painter, kernels, twin
from fresco_core.propagation.gpu.scene import Turn
torch.manual_seed(0)
random = lambda *shape: torch.randint(0, 256, shape, dtype=torch.uint8)
painter = batch_painter.BatchPainter(random(2, 5, 6, 3), [random(2, 5, 6, 2)], [2.0], patch=PATCH)
scene = painter._scene(0, (4, 7), [random(2, 4, 7, 2)], torch.tensor([1, 0]))
first = torch.randint(1, 4, (2, 28)) << 16 | torch.randint(1, 5, (2, 28))
scene.field_BN.copy_(first.int())
twin.count(scene)
other = dataclasses.replace(scene, **{
    name: value.clone()
    for name, value in vars(scene).items()
    if name.endswith(("BN", "ND", "BM", "_B"))
})
for step in STEPS:
    for engine, where in ((twin, scene), (kernels, other)):
        step(engine, where)
    for name in ("image_BN", "target_BND", "changed_BN", "active_BN", "coverage_BM", "cost_BN",
                 "field_BN", "count_BM", "total_B", "limit_B"):
        assert torch.equal(getattr(scene, name), getattr(other, name)), name
"""


def interpreted(patch: int, steps: str) -> None:
    """Steps by both engines on copies of a scene, the kernels by Triton's interpreter."""
    code = INTERPRETED.replace("PATCH", str(patch)).replace("STEPS", steps)
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "TRITON_INTERPRET": "1"}
    )


@pytest.mark.skipif(find_spec("triton") is None, reason="no Triton")
def test_kernels_do_what_the_twin_does() -> None:
    """Votes and coverage alone: interpreted, a patch distance takes seconds (see tests/gpu)."""
    steps = (
        "(lambda e, s: (e.vote(s), e.show(s, -1), s.total_B.fill_(9999), e.cover(s, 300)), "
        "lambda e, s: (e.show(s, 9), e.cover(s, 0)))"
    )
    interpreted(3, steps)
