"""The reference pass, the DDPM step and whole translations against reference data."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fresco_core.conditioning import Conditioning
from fresco_core.correspondence import TokenGuides
from fresco_core.models import load_diffusion_models
from fresco_core.optimization import correlation, optimize_features
from fresco_core.options import AttentionOptions, OptimizationOptions, TranslationOptions
from fresco_core.sampling import PictureCodec, Schedule, repeat_first, to_uint8
from fresco_core.smoothing import BackgroundSmoother
from fresco_core.translator import FrescoTranslator
from tests.parity.arrays import (
    correspondence,
    load_cases,
    normalised,
    relative_error,
    tensor,
)

Arrays = dict[str, np.ndarray]


class ReplayedNoise:
    """The draws that the reference data was made with."""

    def __init__(self, intra: list[Tensor], loop: list[Tensor], posterior: list[Tensor]) -> None:
        self._draws, self._loop, self._posterior = intra, loop, posterior

    def restart(self) -> None:
        self._draws = self._loop

    def latent(self, shape: tuple[int, ...]) -> Tensor:
        return self._pop(self._draws, shape)

    def posterior(self, shape: tuple[int, ...]) -> Tensor:
        return self._pop(self._posterior, shape)

    @staticmethod
    def _pop(draws: list[Tensor], shape: tuple[int, ...]) -> Tensor:
        draw = draws.pop(0)
        assert tuple(draw.shape) == shape
        return draw


@pytest.fixture(scope="module")
def models(reference_dir: Path):
    return load_diffusion_models(
        str(reference_dir / "tiny_sd"),
        vae=None,
        controlnets=(str(reference_dir / "tiny_controlnet"),),
        device="cpu",
        dtype=torch.float32,
    )


@pytest.fixture(scope="module")
def translator(models) -> FrescoTranslator:
    """One translator for all tests: hooks are put into the models once."""
    return FrescoTranslator(models, flow=None)  # type: ignore[arg-type]


def test_ddpm_steps(reference_dir: Path, models):
    cases = load_cases(reference_dir / "step.npz")
    top = cases.pop("")
    schedule = Schedule.from_scheduler(models.scheduler, len(top["timesteps"]))
    assert list(schedule.timesteps) == top["timesteps"].tolist()
    codec, pairs = PictureCodec(models.vae), correspondence(top)
    background = tensor(top["background"])
    sample, predicted = tensor(top["sample"]), tensor(top["model_output"])
    for tag, case in cases.items():
        index = schedule.timesteps.index(int(case["t"][0]))
        clean = schedule.predict_clean(sample, predicted, index)
        if "vae_noise" in case:
            with torch.no_grad():
                pictures = codec.decode(clean)
                smoothed = BackgroundSmoother(pairs, background)(pictures)
                clean = codec.encode(smoothed, lambda _, case=case: tensor(case["vae_noise"]))
            if "decoded" in case:
                assert relative_error(pictures, case["decoded"]) < 1e-5
                assert relative_error(smoothed, case["warped"]) < 1e-5
        noise = tensor(case["variance_noise"])
        noise = repeat_first(noise) if "repeat" in tag else noise
        assert relative_error(clean, case["pred_x0"]) < 1e-5, tag
        found = schedule.previous(sample, clean, noise, index)
        assert relative_error(found, case["prev_sample"]) < 1e-5, tag


def stored_conditioning(case: Arrays, translator: FrescoTranslator, background: bool = True):
    """Conditioning from what is stored instead of from frames alone."""
    frames, pairs = normalised(case["frames"]), correspondence(case)
    return Conditioning(
        frames,
        tensor(case["prompt_embeds"]),
        translator.conditioner.control(case["canny"][:, None]) if "canny" in case else (),
        pairs,
        TokenGuides(frames, pairs),
        tensor(case["background"]) if background and "background" in case else None,
    )


def test_reference_pass(reference_dir: Path, translator: FrescoTranslator):
    names = json.loads((reference_dir / "attention.json").read_text())["order_of_stored_features"]
    for case in load_cases(reference_dir / "intraframe.npz").values():
        # The pass looks at frames and prompts only; flows stand in so that there is a conditioning.
        count, height, width, _ = case["frames"].shape
        still = np.zeros((count, 2, height, width), np.float32)
        none = np.zeros((count, height, width), bool)
        filled = case | {"bwd_flows": still, "bwd_occs": none}
        noise = ReplayedNoise([tensor(case["noise"])], [], [tensor(case["vae_noise"])])
        drawn = torch.randn(
            case["noise"].shape, generator=torch.Generator().manual_seed(int(case["seed"][0]))
        )
        assert torch.equal(drawn, tensor(case["noise"]))
        translator.options = TranslationOptions()
        assert translator.schedule.timesteps[-1] == int(case["timestep"][0])
        with torch.no_grad(), translator.decoder.recording():
            references = translator.reference_pass(stored_conditioning(filled, translator), noise)
        for i, name in enumerate(names):
            stored = translator.attention.reference[name]
            assert relative_error(stored, case[f"stored_attn_{i}"]) < 1e-5
        for level, tokens in references.items():
            found = correlation(tokens)
            if f"correlation_{level}" in case:
                assert relative_error(found, case[f"correlation_{level}"]) < 1e-5
            elif f"correlation_{level}_rows" in case:
                rows = tensor(case[f"correlation_{level}_row_index"])
                expected = case[f"correlation_{level}_rows"]
                assert relative_error(found[:, rows], expected) < 1e-5


@pytest.fixture(scope="module")
def stored(reference_dir: Path):
    settings = json.loads((reference_dir / "translate.json").read_text())["settings"]
    return load_cases(reference_dir / "translate.npz"), settings


def options_of(run: str, settings: dict) -> TranslationOptions:
    """Options of a run, read off its name: off | attn | bg | all, _nocontrol, _layerN…, _itersN."""
    everything = run.startswith("all")
    levels = re.search(r"_layer(\d+)", run)
    iterations = re.search(r"_iters(\d+)", run)
    steps = settings["num_inference_steps"]
    return TranslationOptions(
        steps=steps,
        warmup_steps=settings["num_warmup_steps"],
        guidance_scale=settings["guidance_scale"],
        control_scales=(settings["cond_scale"],),
        repeat_noise=settings["repeat_noise"] and "nocontrol" not in run,
        cross_frame_attention=everything or run == "attn",
        spatial_attention=everything or run == "attn",
        temporal_attention=everything or run == "attn",
        feature_optimization=everything,
        background_smoothing=everything or run == "bg",
        spatial_attention_steps=settings["num_intraattn_steps"],
        temporal_attention_end=settings["step_interattn_end"],
        optimization_end=settings["end_opt_step"],
        optimized_levels=tuple(int(c) for c in levels[1])
        if levels
        else tuple(settings["opt_layers"]),
        smoothing_begin=settings["bg_smoothing_steps"][0] / steps,
        smoothing_end=(settings["bg_smoothing_steps"][-1] + 1) / steps,
        attention=AttentionOptions(settings["intraattn_scale"], settings["interattn_scale"]),
        optimization=OptimizationOptions(
            int(iterations[1]) if iterations else settings["opt_iters"],
            settings["opt_lr"],
            settings["opt_intra_weight"],
        ),
    )


def prepare(cases: dict[str, Arrays], run: str, batch: str, translator: FrescoTranslator):
    """Conditioning, references and noise of one stored batch; the translator is left ready."""
    shared, own = cases[batch], cases[f"{run}.{batch}"]
    loop = [tensor(shared["initial_noise"]), *tensor(shared["variance_noise"])]
    smoothing = sorted(
        (int(n.rpartition("_t")[2]) for n in own if n.startswith("bg_vae_noise_t")), reverse=True
    )
    posterior = [
        tensor(shared["x0_vae_noise"]),
        *(tensor(own[f"bg_vae_noise_t{t}"]) for t in smoothing),
    ]
    if translator.options.spatial_attention or translator.options.feature_optimization:
        posterior.insert(0, tensor(shared["intra_vae_noise"]))
    noise = ReplayedNoise([tensor(shared["intra_noise"])], loop, posterior)
    conditioning = stored_conditioning(
        shared, translator, background=translator.options.background_smoothing
    )
    if "nocontrol" in run:
        conditioning = replace(conditioning, controls_B3HW=())
    with torch.no_grad():
        references = translator.reference_pass(conditioning, noise)
    translator.attention.guides = conditioning.guides
    return conditioning, references, noise


def tolerance_of(run: str) -> float:
    if run == "all":
        return 0.35  # chaotic: two correct programs differ by as much
    return 5e-3 if "_iters" in run else 1e-4


def runs(reference_dir: Path) -> list[str]:
    with np.load(reference_dir / "translate.npz") as data:
        return sorted({k.split(".batch")[0] for k in data.files if ".batch" in k})


def pytest_generate_tests(metafunc):
    if "run" in metafunc.fixturenames:
        from tests.conftest import find_material

        folder = find_material("FRESCO_REFERENCE_DIR", "reference")
        metafunc.parametrize("run", runs(folder) if folder else ["no reference data"])


def test_translation(stored, translator: FrescoTranslator, run: str):
    cases, settings = stored
    translator.options = options_of(run, settings)
    record = None
    for batch in sorted(c.partition(".")[2] for c in cases if c.startswith(f"{run}.batch")):
        own = cases[f"{run}.{batch}"]
        conditioning, references, noise = prepare(cases, run, batch, translator)
        steps = []
        with torch.no_grad():
            latents, record = translator.sample(
                conditioning, references, noise, record, steps.append
            )
            pictures = translator.codec.decode(latents)
        tolerance = tolerance_of(run)
        assert relative_error(latents, own["latents_final"]) < tolerance
        if run == "all":
            continue
        assert [s.timestep for s in steps] == cases[batch]["timesteps"].tolist()
        entering = torch.stack([s.latents for s in steps])
        assert relative_error(entering, own["latents_in"]) < tolerance
        if "guided_noise" in own:
            predicted = torch.stack([s.noise for s in steps])
            assert relative_error(predicted, own["guided_noise"]) < 3 * tolerance
        if "record_latents" in own:
            assert relative_error(record, own["record_latents"]) < tolerance
        for step in steps:
            if f"pred_x0_t{step.timestep}" in own:
                expected = own[f"pred_x0_t{step.timestep}"]
                assert relative_error(step.clean, expected) < tolerance
        if "images" in own:
            difference = to_uint8(pictures).int() - tensor(own["images"]).int()
            assert difference.abs().max() <= 2
        if "decoded_first_two" in own:
            assert relative_error(pictures[:2], own["decoded_first_two"]) < tolerance


def test_single_calls_of_the_chaotic_run(stored, translator: FrescoTranslator):
    """Each optimisation call from the stored input, and the steps that are not optimised."""
    cases, settings = stored
    translator.options = options_of("all", settings)
    own = cases["all.batch1"]
    conditioning, references, _ = prepare(cases, "all", "batch1", translator)
    for level, tokens in references.items():
        name = next(n for n in own if re.fullmatch(rf"t\d+_layer{level}_in", n))
        stem = name.removesuffix("_in")
        losses: list[float] = []
        found = optimize_features(
            tensor(own[name]),
            reference_BPC=tokens,
            correspondence=conditioning.correspondence,
            on_iteration=lambda loss, _, losses=losses: losses.append(loss),
        )
        np.testing.assert_allclose(losses, own[f"{stem}_loss"], rtol=5e-4)
        assert relative_error(found, own[f"{stem}_opt"]) < 5e-3
        smoothed = conditioning.smooth(tensor(own[f"{stem}_opt"]))
        assert relative_error(smoothed, own[f"{stem}_out"]) < 1e-5

    begin = translator.options.warmup_steps
    later = range(translator.options.optimization_end, translator.options.steps)
    for index in later:
        predicted = translator.predict_noise(
            tensor(own["latents_in"][index - begin]), index, conditioning, references
        )
        assert relative_error(predicted, own["guided_noise"][index - begin]) < 1e-4
