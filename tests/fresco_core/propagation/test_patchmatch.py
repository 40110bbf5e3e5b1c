"""Synthesis: quality on a known answer, error map, sizes, determinism."""

import numpy as np
import pytest

from fresco_core.propagation.effort import Effort
from fresco_core.propagation.level_sizes import level_count, level_size
from fresco_core.propagation.patchmatch import Guide, fit, synthesize
from fresco_core.propagation.positions import positions
from tests.fresco_core.propagation.scene import psnr, sliding, stylise, texture


def moved(height: int = 48, width: int = 64) -> tuple[np.ndarray, list[Guide], np.ndarray]:
    """Style, guides and the true answer for a scene that moved by some pixels."""
    frames, _, _ = sliding(4, height, width)
    truth = stylise(frames[3])
    return stylise(frames[0]), [Guide(frames[0], frames[3], 6.0)], truth


def test_follows_the_guide():
    style, guides, truth = moved()
    result = synthesize(style, guides)
    assert result.image_HWC.shape == truth.shape
    assert psnr(result.image_HWC, truth) > psnr(style, truth) + 8


def test_unchanged_guide_gives_the_style_back():
    style = stylise(texture(40, 40))
    guide = Guide(texture(40, 40), texture(40, 40), 6.0)
    result = synthesize(style, [guide, Guide(positions(40, 40), positions(40, 40), 2.0)])
    assert psnr(result.image_HWC, style) > 30
    middle = result.error_HW[4:-4, 4:-4]
    assert np.median(middle) < 50


def test_error_map_marks_what_the_source_does_not_know():
    picture = texture(48, 48)
    target = picture.copy()
    target[20:30, 20:30] = 255 - target[20:30, 20:30] // 4
    result = synthesize(stylise(picture), [Guide(picture, target, 6.0)])
    assert result.error_HW[22:28, 22:28].mean() > 20 * np.median(result.error_HW)


def test_error_map_is_the_weighted_patch_difference():
    """With one source patch only, style and guide flat, the error is known: 9 weight diff²."""
    style = np.full((3, 3, 3), 100, np.uint8)
    guide = Guide(np.full((3, 3), 50, np.uint8), np.full((3, 3), 60, np.uint8), 2.0)
    result = synthesize(style, [guide])
    assert (result.image_HWC == 100).all()
    np.testing.assert_allclose(result.error_HW, 9 * 2.0 * 10**2, rtol=2e-3)


def test_uniformity_spreads_the_source():
    """The guide wants the black half: only the penalty makes anything else used."""
    style = np.zeros((32, 32, 3), np.uint8)
    style[:, 16:] = 255
    source = np.zeros((32, 32), np.uint8)
    source[:, 16:] = 255
    guides = [Guide(source, np.zeros((32, 32), np.uint8), 1.0)]
    white = {
        weight: float((synthesize(style, guides, uniformity=weight).image_HWC > 127).mean())
        for weight in (0.0, 3.5e6)
    }
    assert white[0.0] < 0.02
    assert 0.2 < white[3.5e6] < 0.8


def test_error_is_against_the_synthesis_before_the_last_vote():
    """Nothing is searched again after the first vote, so a second one sees another synthesis."""
    style, source, target = texture(20, 20), texture(20, 20, seed=1), texture(20, 20, seed=2)
    guides = [Guide(source, target, 0.01)]
    one, two, three = (
        synthesize(style, guides, effort=Effort(votes, still=255)) for votes in (1, 2, 3)
    )
    np.testing.assert_array_equal(one.image_HWC, two.image_HWC)
    assert two.error_HW.mean() < one.error_HW.mean()
    np.testing.assert_array_equal(two.error_HW, three.error_HW)


def test_one_seed_one_result():
    style, guides, _ = moved()
    first, again = synthesize(style, guides, seed=5), synthesize(style, guides, seed=5)
    np.testing.assert_array_equal(first.image_HWC, again.image_HWC)
    np.testing.assert_array_equal(first.error_HW, again.error_HW)
    other = synthesize(style, guides, seed=6)
    assert (other.image_HWC != first.image_HWC).any()


def test_skipping_still_pixels_changes_little():
    style, guides, truth = moved(96, 128)
    full, skipped = synthesize(style, guides), synthesize(style, guides, effort=Effort(still=1))
    assert abs(psnr(full.image_HWC, truth) - psnr(skipped.image_HWC, truth)) < 1
    assert skipped.error_HW.mean() < 1.1 * full.error_HW.mean()


@pytest.mark.parametrize(
    "size",
    [(1, 1), (1, 9), (2, 3), (4, 4), (5, 5), (7, 30), (10, 11), (11, 11), (13, 47), (64, 64)],
)
def test_any_size(size: tuple[int, int]):
    style = texture(*size)
    result = synthesize(style, [Guide(style, style, 1.0), Guide(style[..., 0], style[..., 1], 0.5)])
    assert result.image_HWC.shape == style.shape
    assert result.image_HWC.dtype == np.uint8
    assert result.error_HW.shape == size
    assert np.isfinite(result.error_HW).all()


@pytest.mark.parametrize(("style_size", "target_size"), [((24, 24), (24, 24)), ((24, 40), (30, 9))])
def test_patches_larger_than_the_smallest_level_of_other_pictures(style_size, target_size):
    """24 pixels are halved to 12, which hold no patch of 15."""
    style, target = texture(*style_size), texture(*target_size, seed=1)
    guides = [Guide(style, target, 1.0)]
    result = synthesize(style, guides, patch=15, effort=Effort(2, 2))
    assert result.image_HWC.shape == target.shape
    assert np.isfinite(result.error_HW).all()
    error = fit(result.image_HWC, style, guides, patch=15, sweeps=2)
    assert 0 < error.min() <= error.max() < 1e9


@pytest.mark.parametrize("patch", range(1, 16, 2))
def test_every_level_holds_a_patch(patch: int):
    for side in range(patch, 41):
        smallest = min(level_size((side, 40), level_count(side, patch) - 1))
        assert smallest >= patch
        if patch <= 11 <= side:
            assert 11 <= smallest < 22


def test_target_of_another_size():
    source, target = texture(30, 40), texture(41, 23, seed=1)
    result = synthesize(stylise(source), [Guide(source, target, 6.0)])
    assert result.image_HWC.shape == (41, 23, 3)


def test_grey_styles_stay_grey():
    picture = texture(24, 24)
    grey = np.repeat(picture[..., :1], 3, axis=2)
    image = synthesize(grey, [Guide(picture, picture, 1.0)]).image_HWC
    assert image.shape == grey.shape
    assert (image == image[..., :1]).all()
    flat = synthesize(picture[..., 0], [Guide(picture, picture, 1.0)]).image_HWC
    assert flat.shape == (24, 24)


def test_grey_guides_count_as_one_channel():
    style, picture = texture(24, 24), texture(24, 24, seed=1)
    grey = np.repeat(picture[..., :1], 3, axis=2)
    one = synthesize(style, [Guide(picture[..., 0], picture[::-1, :, 0], 2.0)])
    three = synthesize(style, [Guide(grey, grey[::-1], 2.0)])
    np.testing.assert_array_equal(one.image_HWC, three.image_HWC)


def test_weights_without_effect_and_very_large_ones():
    style = texture(20, 20)
    for weight in (0.0, 1e9):
        result = synthesize(style, [Guide(style, style, weight)])
        assert np.isfinite(result.error_HW).all()


def test_other_patch_sides():
    style, guides, truth = moved()
    for patch in (3, 7):
        assert (
            psnr(synthesize(style, guides, patch=patch).image_HWC, truth) > psnr(style, truth) + 5
        )


def test_arguments_are_checked():
    style = texture(12, 12)
    guide = Guide(style, style, 1.0)
    with pytest.raises(ValueError, match="at least one guide"):
        synthesize(style, [])
    with pytest.raises(ValueError, match="odd"):
        synthesize(style, [guide], patch=4)
    with pytest.raises(ValueError, match="odd"):
        synthesize(style, [guide], patch=17)
    with pytest.raises(ValueError, match="channels"):
        synthesize(np.repeat(style, 2, axis=2), [guide])
    with pytest.raises(ValueError, match="guide source"):
        synthesize(style, [Guide(style[1:], style, 1.0)])
    with pytest.raises(ValueError, match="differ in size"):
        synthesize(style, [guide, Guide(style, style[1:], 1.0)])


class TestFit:
    """The error of a picture that something else has painted."""

    def test_what_synthesize_says_of_its_own_pictures(self):
        frames, _, _ = sliding(3, height=64, width=96)
        style = stylise(frames[0])
        guides = [Guide(frames[0], frames[2], 6.0)]
        painted = synthesize(style, guides, effort=Effort(6, 6))
        error = fit(painted.image_HWC, style, guides, sweeps=12)
        assert error.shape == painted.error_HW.shape
        assert error.dtype == np.float32
        assert 0.7 < error.mean() / painted.error_HW.mean() < 1.3
        assert np.corrcoef(np.log1p(error.ravel()), np.log1p(painted.error_HW.ravel()))[0, 1] > 0.9

    def test_nothing_is_wrong_with_the_style_itself(self):
        style = texture(32, 40)
        guides = [Guide(style, style, 1.0)]
        assert np.median(fit(style, style, guides, uniformity=0.0)) == 0

    def test_what_is_not_in_the_style_stands_out(self):
        style = texture(48, 48)
        image = style.copy()
        image[20:28, 20:28] = 255 - image[20:28, 20:28]
        error = fit(image, style, [Guide(style, style, 1.0)])
        assert error[22:26, 22:26].min() > 10 * np.median(error)

    def test_sizes_are_checked(self):
        style = texture(16, 16)
        with pytest.raises(ValueError, match="picture"):
            fit(style[1:], style, [Guide(style, style, 1.0)])
