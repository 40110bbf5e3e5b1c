"""Reference cases of propagation: what is in a folder, and how good a synthesised frame is.

A case is a folder with ``meta.json``: style, guides, flow, the frame that the reference
implementation made, the true frame, and what the reference took.

Shape suffixes: H, W rows and columns; C = RGB; 2 = horizontal (x), vertical (y) displacement.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from fresco_core.propagation.options import PropagationOptions
from fresco_core.propagation.patchmatch import Guide, Synthesis, synthesize
from fresco_core.propagation.warp import warp_linear

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """One folder."""

    folder: Path

    @cached_property
    def meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads((self.folder / "meta.json").read_text())
        return meta

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def large(self) -> bool:
        """One of the 512 px cases, for which the bound on seconds holds."""
        return min(self.meta["height"], self.meta["width"]) >= 512

    @cached_property
    def style_HWC(self) -> Picture:
        return self.picture(self.meta["style"])

    @cached_property
    def guides(self) -> list[Guide]:
        return [
            Guide(self.picture(guide["src"]), self.picture(guide["tgt"]), guide["weight"])
            for guide in self.meta["guides"]
        ]

    def picture(self, name: str) -> Picture:
        picture = cv2.imread(str(self.folder / name))
        if picture is None:
            raise FileNotFoundError(f"{self.folder / name}: no such picture")
        return np.ascontiguousarray(picture[..., ::-1])

    def synthesize(self, options: PropagationOptions) -> Synthesis:
        """What ours makes of the case; weights, patch and uniformity are the case's own."""
        parameters = self.meta["params"]
        return synthesize(
            self.style_HWC,
            self.guides,
            style_weight=self.meta["style_weight"],
            patch=parameters["patchsize"],
            uniformity=parameters["uniformity"],
            effort=options.effort,
            seed=options.seed,
        )

    def on_device(self, options: PropagationOptions, device: str, chains: int) -> Synthesis:
        """What the device makes of it: the first of so many alike that are painted together."""
        import torch

        from fresco_core.propagation.gpu.batch_painter import BatchPainter

        def tensor(picture_HWC: Picture) -> Any:
            # Each chain has its own memory, as it would in real work.
            return torch.from_numpy(picture_HWC)[None].repeat(chains, 1, 1, 1).to(device)

        parameters = self.meta["params"]
        painter = BatchPainter(
            tensor(self.style_HWC),
            [tensor(guide.source) for guide in self.guides],
            [guide.weight for guide in self.guides],
            style_weight=self.meta["style_weight"],
            patch=parameters["patchsize"],
            uniformity=parameters["uniformity"],
        )
        targets = [tensor(guide.target) for guide in self.guides]
        images, errors = painter.paint(targets, options.device_effort, options.seed)
        return Synthesis(images[0].cpu().numpy(), errors[0].cpu().numpy())

    def fidelity(self, picture_HWC: Picture) -> dict[str, float]:
        """PSNR and SSIM to the true frame; warp error: the mean difference (of 255) to the
        previous result seen through the flow, bilinear, where nothing is occluded.
        """
        truth_HWC = self.picture("truth.png")
        flow_2HW = np.moveaxis(np.load(self.folder / "flow.npy").astype(np.float32), -1, 0)
        warped_HWC = warp_linear(self.picture("prev.png"), flow_2HW)
        seen_HW = self.picture("occ.png")[..., 0] == 0
        return {
            "psnr": float(cv2.PSNR(picture_HWC, truth_HWC)),
            "ssim": float(structural_similarity(picture_HWC, truth_HWC, channel_axis=2)),
            "warp_error": float(np.abs(picture_HWC - warped_HWC)[seen_HW].mean()),
        }


def cases_in(folder: Path) -> list[Case]:
    """All cases below a folder, by name."""
    return [Case(meta.parent) for meta in sorted(folder.glob("*/meta.json"))]
