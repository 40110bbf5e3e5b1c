import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from fresco_core.sampling import (
    Schedule,
    SeededNoise,
    repeat_first,
    to_normalised,
    to_uint8,
)


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    scheduler = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing="leading",
    )
    return Schedule.from_scheduler(scheduler, 20)


def test_schedule_of_stable_diffusion(schedule):
    assert schedule.timesteps == tuple(range(951, 0, -50))
    assert len(schedule.alphas) == 21
    assert schedule.alphas[-1] == 1
    assert list(schedule.alphas) == sorted(schedule.alphas)


def test_clean_latents_are_found_again(schedule):
    latents, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    noisy = schedule.add_noise(latents, noise, 5)
    assert torch.allclose(schedule.predict_clean(noisy, noise, 5), latents, atol=1e-5)


def test_a_perfect_prediction_ends_at_the_clean_latents(schedule):
    clean = torch.randn(1, 4, 8, 8)
    latents = schedule.add_noise(clean, torch.randn(1, 4, 8, 8), 0)
    for index in range(20):
        latents = schedule.previous(latents, clean, torch.randn(1, 4, 8, 8), index)
    assert torch.allclose(latents, clean, atol=1e-4)


def test_a_step_keeps_the_noise_level(schedule):
    torch.manual_seed(0)
    clean = torch.zeros(1, 4, 256, 256)
    noise = torch.randn_like(clean)
    latents = schedule.add_noise(clean, noise, 8)
    following = schedule.previous(latents, clean, torch.randn_like(clean), 8)
    assert following.std() == pytest.approx((1 - schedule.alphas[9]) ** 0.5, rel=0.02)


def test_noise_repeats_after_a_restart_and_differs_from_the_posterior():
    noise, other = SeededNoise(7), SeededNoise(7)
    first = noise.latent((2, 4, 8, 8))
    posterior = noise.posterior((2, 4, 8, 8))
    noise.restart()
    assert torch.equal(noise.latent((2, 4, 8, 8)), first)
    assert torch.equal(other.latent((2, 4, 8, 8)), first)
    assert not torch.equal(posterior, first)
    assert not torch.equal(noise.posterior((2, 4, 8, 8)), posterior)
    assert not torch.equal(SeededNoise(8).latent((2, 4, 8, 8)), first)


def test_the_largest_seed_is_taken():
    assert SeededNoise(2**63 - 1).posterior((1,)).isfinite().all()


def test_repeat_first():
    noise = torch.randn(3, 4, 2, 2)
    assert all(torch.equal(frame, noise[0]) for frame in repeat_first(noise))


def test_pictures_survive_the_way_there_and_back():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)
    normalised = to_normalised(torch.from_numpy(pictures))
    assert normalised.shape == (2, 3, 4, 6)
    assert normalised.min() >= -1
    assert np.array_equal(to_uint8(normalised).numpy(), pictures)
    assert to_uint8(torch.full((1, 3, 1, 1), 9.0)).max() == 255
