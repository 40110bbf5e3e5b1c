"""What a segment consists of; its checks are tested in test_propagate."""

from fresco_core.propagation.inputs import Segment
from tests.fresco_core.propagation.scene import sliding


def test_a_segment_knows_its_size():
    frames, forward, backward = sliding(5, height=8, width=12)
    segment = Segment(frames, frames[0], frames[-1], forward, backward)
    assert segment.between == 3
    assert segment.size == (8, 12)
