import torch
from torch import nn

from fresco_core.decoder import DecoderLevels


class Block(nn.Module):
    def forward(self, hidden_states, scale=1):
        return hidden_states * scale


class Unet(nn.Module):
    def __init__(self):
        super().__init__()
        self.up_blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x):
        return self.up_blocks[1](self.up_blocks[0](hidden_states=x, scale=2), 3)


def test_levels_are_recorded_and_replaced_only_within():
    unet = Unet()
    levels = DecoderLevels(unet)
    x = torch.ones(1)
    with levels.recording() as inputs:
        assert unet(x) == 6
    assert {level: float(v) for level, v in inputs.items()} == {0: 1, 1: 2}
    with levels.passing_through(lambda level, feature: feature + level + 1):
        assert unet(x) == ((1 + 1) * 2 + 2) * 3
    assert unet(x) == 6
