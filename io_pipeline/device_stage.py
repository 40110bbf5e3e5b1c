"""What a device's process does, described so that whoever sends the description needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2

if TYPE_CHECKING:
    import torch

    from io_pipeline.translate import Translate
    from io_pipeline.worker import Report


@dataclass(frozen=True)
class DeviceStage:
    """Models loaded once, then windows translated.

    Torch has as many threads as the environment says, and OpenCV has as many as torch.

    Attributes:
        device: ``"cpu"`` or ``"cuda:N"``.
        dtype: ``"float16"``, ``"bfloat16"``, ``"float32"``; ``"auto"`` is what suits the device.
        models: the arguments of `fresco_core.models.load_diffusion_models` that name models.
        flow, saliency: model and weights, as `fresco_core.flow.load_flow` and
            `fresco_core.saliency.load_saliency` take them.
        detectors: the arguments of `io_pipeline.control_maps.load_detectors`; None where no control
            map is left to the device.
        facts: what goes into the manifest; device, precision and the names of the flow and
            saliency models, as they were loaded, are added.
    """

    device: str
    dtype: str
    models: Mapping[str, Any]
    flow: tuple[str, str | None]
    saliency: tuple[str, str | None]
    detectors: Mapping[str, Any] | None
    facts: Mapping[str, Any]

    def load(self, report: "Report") -> "Translate":
        """Load the models, all of them from this machine.

        Raises:
            ModelsError: weights are missing or do not fit.
        """
        import torch

        from fresco_core.flow import load_flow
        from fresco_core.models import load_diffusion_models
        from fresco_core.saliency import load_saliency
        from fresco_core.translator import FrescoTranslator
        from io_pipeline.control_maps import load_detectors
        from io_pipeline.translate import Translate

        cv2.setNumThreads(torch.get_num_threads())
        device = torch.device(self.device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dtype = choose_dtype(self.dtype, device)
        report("load", 0, 4)
        models = load_diffusion_models(**self.models, device=device, dtype=dtype, offline=True)
        report("load", 1, 4)
        flow = load_flow(*self.flow, device)
        report("load", 2, 4)
        saliency = load_saliency(*self.saliency, device)
        report("load", 3, 4)
        detectors = None
        if self.detectors is not None:
            detectors = load_detectors(**self.detectors, device=self.device, offline=True)
        report("load", 4, 4)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        translator = FrescoTranslator(models, flow, saliency=saliency)
        loaded = {"flow": translator.flow.name, "saliency": translator.conditioner.saliency.name}
        facts = {
            "device": name,
            "dtype": str(dtype).removeprefix("torch."),
            **self.facts,
            "models": {**self.facts.get("models", {}), **loaded},
        }
        return Translate(translator, detectors, facts)


def choose_dtype(name: str, device: "torch.device") -> "torch.dtype":
    """The precision of a setting."""
    import torch

    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype
