"""Random weights of Stable Diffusion 1.5's size, for measuring speed: it does not depend on them.

    python -m benchmarks.large_model FOLDER

Writes ``FOLDER/sd``, ``FOLDER/controlnet`` (float16, 2.8 GB together) and
``FOLDER/ControlNetHED.pth``, as `frescod` reads them.
"""

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from fresco_core.tiny_model import make_tiny_model

# Last layers of residual branches: smaller weights keep deep random networks within float16.
_BRANCH_ENDS = ("conv2", "to_out.0", "ff.net.2", "proj_out")


def make_large_model(folder: Path) -> None:
    """Write the model; tokenizer and scheduler are those of the tiny one."""
    base, control = make_tiny_model(folder)
    vocabulary = CLIPTextConfig.from_pretrained(base / "text_encoder").vocab_size
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        controlnet = ControlNetModel.from_unet(unet)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            sample_size=512,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocabulary,
                hidden_size=768,
                intermediate_size=3072,
                projection_dim=768,
                num_hidden_layers=12,
                num_attention_heads=12,
                bos_token_id=vocabulary - 2,
                eos_token_id=vocabulary - 1,
            )
        )
    for model in (unet, controlnet, vae):
        _damp(model)
    for name, part in (("unet", unet), ("vae", vae), ("text_encoder", text_encoder)):
        part.half().save_pretrained(base / name)
    controlnet.half().save_pretrained(control)
    from controlnet_aux.hed import ControlNetHED_Apache2

    torch.save(ControlNetHED_Apache2().state_dict(), folder / "ControlNetHED.pth")


@torch.no_grad()
def _damp(model: nn.Module) -> None:
    for name, layer in model.named_modules():
        if name.endswith(_BRANCH_ENDS):
            for parameter in layer.parameters():
                parameter.mul_(0.5)


if __name__ == "__main__":
    make_large_model(Path(sys.argv[1]))
