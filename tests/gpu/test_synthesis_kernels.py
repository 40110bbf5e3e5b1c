"""The kernels of synthesis against their plain twin, to the bit. Skipped without a GPU."""

import pytest
import torch
from torch import Tensor

from fresco_core.propagation.effort import Effort
from fresco_core.propagation.gpu import twin
from fresco_core.propagation.gpu.batch_painter import BatchPainter

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

# Chains; rows and columns of source and target; patch; channels of the style and of guides. Each
# patch side and number of guides takes seconds to compile.
CASES = [
    (2, (45, 61), (45, 61), 5, 3, (3, 3, 3, 3)),
    (1, (64, 37), (41, 80), 3, 1, (1, 3)),
    (3, (33, 50), (33, 50), 7, 4, (3, 1, 2, 2, 3, 3, 3)),
    (1, (96, 130), (97, 131), 5, 3, (3, 3, 3, 3)),
    (2, (30, 30), (30, 30), 15, 2, (1,)),
    (2, (30, 30), (30, 30), 1, 3, (3,)),
]
WEIGHTS = [6.0, 0.5, 0.5, 2.0, 1.0, 0.3, 0.7]


def pictures(chains: int, size: tuple[int, int], channels: int, seed: int) -> Tensor:
    """Smooth pictures with noise, and holes of nothing."""
    maker = torch.Generator("cuda").manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, device="cuda", generator=maker)

    coarse = random(chains, channels, size[0] // 4, size[1] // 4)
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
    noisy = (smooth + 0.1 * random(chains, channels, *size)) * (random(chains, 1, *size) > 0.02)
    return (255 * noisy.clamp(0, 1)).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


EFFORTS = [Effort(3, 2, 1, 1.0), Effort(2, 1, -1, 0.0), Effort(2, 3, 4, 0.5)]


@pytest.mark.parametrize(("case", "effort"), list(zip(CASES, EFFORTS * 2, strict=True)), ids=str)
def test_equal_to_the_twin(case, effort: Effort) -> None:
    from fresco_core.propagation.gpu import kernels

    chains, source_size, size, patch, style, guides = case
    styles = pictures(chains, source_size, style, 0)
    sources = [pictures(chains, source_size, count, 1 + i) for i, count in enumerate(guides)]
    targets = [pictures(chains, size, count, 20 + i) for i, count in enumerate(guides)]
    found = []
    for engine in (twin, kernels):
        painter = BatchPainter(styles, sources, WEIGHTS[: len(guides)], patch=patch, engine=engine)
        found.append(painter.paint(targets, effort, 3))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_the_same_each_time_and_whatever_else_is_painted() -> None:
    styles, source = pictures(5, (70, 90), 3, 0), pictures(5, (70, 90), 3, 1)
    target = pictures(5, (70, 90), 3, 2)
    painter = BatchPainter(styles, [source], [2.0])
    images, errors = painter.paint([target], Effort(6, 2, 1, 1.0), 0)
    for chains in ([0, 1, 2, 3, 4], [4, 2], [3]):
        some = painter.paint(
            [target[chains]], Effort(6, 2, 1, 1.0), 0, chains=torch.tensor(chains, device="cuda")
        )
        assert torch.equal(some[0], images[chains])
        assert torch.equal(some[1], errors[chains])
