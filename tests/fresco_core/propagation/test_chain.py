"""One direction: which pictures guide which frame."""

from typing import Any

import numpy as np
import pytest

from fresco_core.propagation import chain, guides, warp
from fresco_core.propagation.effort import Effort
from fresco_core.propagation.options import PropagationOptions
from fresco_core.propagation.patchmatch import Guide, Synthesis
from fresco_core.propagation.positions import positions
from tests.fresco_core.propagation.scene import sliding, texture

OPTIONS = PropagationOptions(colour=4, edge=3, temporal=2, positional=1, seed=9, sweeps=5)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, list[Guide], dict[str, Any]]]:
    """What the synthesis was asked for; it answers with other noise every time."""
    made: list[tuple[np.ndarray, list[Guide], dict[str, Any]]] = []

    class Recorder:
        def __init__(
            self, style: np.ndarray, sources: Any, weights: Any, size: Any, **options: Any
        ) -> None:
            assert size == style.shape[:2]
            self.style, self.sources, self.weights, self.options = style, sources, weights, options

        def paint(self, targets: Any, effort: Effort, seed: int) -> Synthesis:
            triples = zip(self.sources, targets, self.weights, strict=True)
            more = {"sweeps": effort.sweeps, "seed": seed}
            made.append((self.style, [Guide(*triple) for triple in triples], self.options | more))
            image = texture(*self.style.shape[:2], seed=100 + len(made))
            return Synthesis(image, np.zeros(self.style.shape[:2], np.float32))

    monkeypatch.setattr(chain, "Painter", Recorder)
    return made


def test_guides_of_every_frame(calls: list[tuple[np.ndarray, list[Guide], dict[str, Any]]]):
    frames, forward, backward = sliding(4, height=20, width=30)
    key = texture(20, 30, seed=1)
    results = chain.propagate_key(frames, key, backward, forward, OPTIONS)
    assert len(results) == len(calls) == 3
    previous, position = key, positions(20, 30)
    for j, (style, (colour, edge, temporal, positional), options) in enumerate(calls):
        occluded = warp.occlusion(backward[j], forward[j])
        inpainting = OPTIONS.inpaint_radius, OPTIONS.inpaint_scale
        position = guides.carry(position, backward[j], occluded, *inpainting)
        carried = guides.carry(previous, backward[j], occluded, *inpainting)
        expected = [
            (colour, frames[0], frames[j + 1], 4),
            (edge, guides.edges(frames[0]), guides.edges(frames[j + 1]), 3),
            (temporal, key, carried, 2),
            (positional, positions(20, 30), position, 1),
        ]
        for guide, source, target, weight in expected:
            np.testing.assert_array_equal(guide.source, source)
            np.testing.assert_array_equal(guide.target, target)
            assert guide.weight == weight
        assert style is key
        assert (options["seed"], options["sweeps"]) == (9, 5)
        previous = results[j].image_HWC


def test_nothing_but_the_key_frame(calls: list[Any]):
    frames, forward, backward = sliding(2, height=8, width=8)
    assert chain.propagate_key(frames[:1], frames[0], backward[:0], forward[:0], OPTIONS) == []
    assert not calls
