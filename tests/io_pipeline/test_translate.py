"""Windows translated by tasks are what the translator makes of the same batches."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fresco_core.batch import Carry, KeyFrameBatch
from fresco_core.errors import NoPictureError
from fresco_core.flow import load_flow
from fresco_core.keyframes import Batch, batch_key_frames
from fresco_core.models import load_diffusion_models
from fresco_core.options import AttentionOptions, OptimizationOptions, TranslationOptions
from fresco_core.tiny_model import make_tiny_model
from fresco_core.translator import FrescoTranslator
from io_pipeline import checkpoint
from io_pipeline.blocks import Block
from io_pipeline.match import Match
from io_pipeline.options import MapOptions
from io_pipeline.prompt import Prompt, TimedText
from io_pipeline.prompt_warnings import misread_weights, prompt_warnings
from io_pipeline.tasks import FindFlows, Translated, TranslateWindow
from io_pipeline.translate import FLOW_PAIRS, Translate, cut
from io_pipeline.window import BY_CPU, BY_DEVICE, Window
from io_pipeline.worker import FatalError, OutOfDeviceMemory
from tests.io_pipeline.windows import Reports, clip, cut_clip, read

OPTIONS = TranslationOptions(
    steps=4,
    warmup_steps=2,
    optimization_end=3,
    smoothing_begin=0.5,
    optimization=OptimizationOptions(iterations=1),
)
LITERAL = replace(OPTIONS, prompt_weights=False)
MAP_OPTIONS = MapOptions()
PROMPT = Prompt("a car")
KEYS = (0, 2, 4, 5, 7, 9, 10, 12, 13)
FRAMES = clip(14)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def new_translator(
    folders: tuple[Path, Path], dtype: torch.dtype = torch.float32
) -> FrescoTranslator:
    base, controlnet = folders
    models = load_diffusion_models(str(base), controlnets=(str(controlnet),), dtype=dtype)
    return FrescoTranslator(models, load_flow("dis"), OPTIONS)


@pytest.fixture(scope="module")
def translator(folders: tuple[Path, Path]) -> FrescoTranslator:
    return new_translator(folders)


def canny(frame_HWC: NDArray[np.uint8], options: MapOptions = MAP_OPTIONS) -> NDArray[np.uint8]:
    return np.asarray(cv2.Canny(frame_HWC, options.canny_low, options.canny_high), np.uint8)


def maps_of(
    frame_HWC: NDArray[np.uint8], options: MapOptions, which: Sequence[int]
) -> NDArray[np.uint8]:
    """The same map for every ControlNet."""
    return np.stack([canny(frame_HWC, options)] * len(which))


def task_of(
    window: Window, batch_size: int = 5, file: Path | None = None, job: str = "a"
) -> TranslateWindow:
    maps = (BY_DEVICE,) * len(window.key_numbers) if window.controls else ()
    return TranslateWindow(job, "", window, PROMPT, maps, batch_size, file, OPTIONS, MAP_OPTIONS)


def directly(translator: FrescoTranslator, batches: tuple[Batch, ...]) -> NDArray[np.uint8]:
    """Key frames of the clip, batch after batch, without any window."""
    carry: Carry | None = None
    found = []
    for batch in batches:
        frames = FRAMES[list(batch.new)]
        controls = np.stack([canny(frame) for frame in frames])[:, None]
        batch_prompts = (PROMPT.positive,) * len(batch.new)
        translation = translator.translate(KeyFrameBatch(frames, controls, batch_prompts), carry)
        found.append(translation.frames)
        carry = translation.carry
    return np.concatenate(found)


@pytest.fixture(scope="module")
def expected(translator: FrescoTranslator) -> NDArray[np.uint8]:
    return directly(translator, batch_key_frames(KEYS, 5))


class TestWindowByWindow:
    def test_is_the_translator_called_batch_by_batch(
        self, translator: FrescoTranslator, expected: NDArray[np.uint8]
    ) -> None:
        handler, reports, found = Translate(translator, maps_of), Reports(), []
        last = None
        for window in cut_clip(KEYS, 5):
            block = read(window, FRAMES)
            translated = handler(task_of(window), (block,), reports)
            assert translated is not None
            assert [batch.new for batch in translated.batches] == [window.key_numbers]
            found.append(block["keys"][1:].copy())
            if last is None:
                assert not block["keys"][0].any()
                assert not block["previous_control"].any()
            else:
                assert np.array_equal(block["keys"][0], last["keys"][-1])
                assert np.array_equal(block["previous_control"], last["controls"][BY_DEVICE, -1])
            last = block
        assert np.array_equal(np.concatenate(found), expected)
        assert reports.of("step")[:5] == [(0, 2), (1, 2), (2, 2), (0, 2), (1, 2)]
        assert len(reports.of("maps")) == len(KEYS)

    def test_another_process_goes_on_from_the_checkpoint(
        self,
        translator: FrescoTranslator,
        folders: tuple[Path, Path],
        expected: NDArray[np.uint8],
        tmp_path: Path,
    ) -> None:
        found, file = [], None
        other = new_translator(folders)
        for i, window in enumerate(cut_clip(KEYS, 5)):
            handler = Translate(other if i % 2 else translator, maps_of)
            block = read(window, FRAMES)
            translated = handler(task_of(window, file=file), (block,), Reports())
            assert translated is not None
            file = saved(tmp_path, window, block, translated)
            found.append(block["keys"][1:])
        assert np.array_equal(np.concatenate(found), expected)

    def test_another_clip_between_two_windows_changes_nothing(
        self, translator: FrescoTranslator, expected: NDArray[np.uint8], tmp_path: Path
    ) -> None:
        handler, (first, second, *_) = Translate(translator, maps_of), cut_clip(KEYS, 5)
        block = read(first, FRAMES)
        translated = handler(task_of(first), (block,), Reports())
        assert translated is not None
        file = saved(tmp_path, first, block, translated)
        handler(task_of(first, job="b"), (read(first, clip(14, seed=1)),), Reports())
        block = read(second, FRAMES)
        handler(task_of(second, file=file), (block,), Reports())
        done = len(first.key_numbers)
        new = len(second.key_numbers)
        assert np.array_equal(block["keys"], expected[done - 1 : done + new])

    def test_a_window_done_again_is_the_same(
        self, translator: FrescoTranslator, tmp_path: Path
    ) -> None:
        handler, (first, second, *_) = Translate(translator, maps_of), cut_clip(KEYS, 5)
        block = read(first, FRAMES)
        translated = handler(task_of(first), (block,), Reports())
        assert translated is not None
        file = saved(tmp_path, first, block, translated)
        blocks = [read(second, FRAMES) for _ in range(2)]
        for block in blocks:
            handler(task_of(second, file=file), (block,), Reports())
        for name in ("keys", "carry_latents", "carry_frames", "carry_controls"):
            assert np.array_equal(blocks[0][name], blocks[1][name])

    def test_without_control_maps(self, translator: FrescoTranslator) -> None:
        (window,) = cut_clip((0, 2), 5, controls=0)
        block = read(window, FRAMES)
        assert Translate(translator)(task_of(window), (block,), Reports()) is not None
        prompts = (PROMPT.positive,) * 2
        alone = translator.translate(KeyFrameBatch(FRAMES[[0, 2]], None, prompts))
        assert np.array_equal(block["keys"][1:], alone.frames)

    def test_each_side_draws_its_own_maps(self, translator: FrescoTranslator) -> None:
        (window,) = cut_clip((0, 2, 4), 5)
        blocks = [read(window, FRAMES) for _ in range(2)]
        all_there = blocks[0]
        for i, offset in enumerate(window.key_offsets):
            all_there["controls"][BY_CPU, i] = canny(FRAMES[offset])
        blocks[1]["controls"][BY_CPU, 1] = all_there["controls"][BY_CPU, 1]
        for block, maps in zip(
            blocks, [(BY_CPU,) * 3, (BY_DEVICE, BY_CPU, BY_DEVICE)], strict=True
        ):
            task = replace(task_of(window), maps=maps)
            Translate(translator, maps_of)(task, (block,), Reports())
        assert np.array_equal(blocks[0]["keys"], blocks[1]["keys"])
        assert np.array_equal(blocks[0]["carry_controls"], blocks[1]["carry_controls"])
        assert not blocks[0]["controls"][BY_DEVICE].any()


class TestMatchedAhead:
    """By the CPU pool; the results are those of a device that does it all."""

    @staticmethod
    def translated(
        translator: FrescoTranslator, blocks: Sequence[tuple[Window, Block]], batch_size: int = 5
    ) -> NDArray[np.uint8]:
        handler = Translate(translator, maps_of)
        for window, block in blocks:
            assert handler(task_of(window, batch_size), (block,), Reports()) is not None
        return np.concatenate([block["keys"][1:] for _, block in blocks])

    @staticmethod
    def blocks(batch_size: int = 5) -> list[tuple[Window, Block]]:
        windows = cut_clip(KEYS, batch_size, matched=True)[:2]
        return [(window, read(window, FRAMES)) for window in windows]

    @pytest.fixture
    def asked(
        self, translator: FrescoTranslator, monkeypatch: pytest.MonkeyPatch
    ) -> list[tuple[torch.Size, ...]]:
        """The sizes of what the flow model is asked for."""
        asked: list[tuple[torch.Size, ...]] = []
        flow = translator.conditioner.flow

        def watched(*frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            asked.append(tuple(some.shape for some in frames))
            return flow(*frames)

        monkeypatch.setattr(translator.conditioner, "flow", watched)
        return asked

    def test_nothing_is_searched_again(
        self, translator: FrescoTranslator, expected: NDArray[np.uint8], asked: list[Any]
    ) -> None:
        blocks, match = self.blocks(), Match()
        for window, block in blocks:
            for pair in range(window.ring_pairs):
                match(window, pair, block)
        found = self.translated(translator, blocks)
        assert np.array_equal(found, expected[: len(found)])
        assert asked == []

    def test_what_was_found_counts(
        self, translator: FrescoTranslator, expected: NDArray[np.uint8]
    ) -> None:
        blocks = self.blocks()[:1]
        blocks[0][1]["ring_flows"][:] = 9
        assert not np.array_equal(self.translated(translator, blocks), expected[:5])

    def test_several_batches_of_a_window_find_their_own(
        self, translator: FrescoTranslator, asked: list[Any]
    ) -> None:
        found = self.translated(translator, self.blocks()[:1], 3)
        keys = cut_clip(KEYS, 5)[0].key_numbers
        assert np.array_equal(found, directly(translator, batch_key_frames(keys, 3)))
        assert len(asked) > 1

    @pytest.mark.parametrize("carried", [0, 1])
    def test_of_other_pictures_it_does_not_count(
        self,
        translator: FrescoTranslator,
        expected: NDArray[np.uint8],
        asked: list[Any],
        carried: int,
    ) -> None:
        """The reader was replaced by one with another decoder."""
        blocks = self.blocks()
        for pair in range(blocks[0][0].ring_pairs):
            Match()(blocks[0][0], pair, blocks[0][1])
        other = blocks[1][1]["frames"][0] if carried else blocks[1][1]["first_frame"]
        other += 1
        found = self.translated(translator, blocks)
        assert np.array_equal(found, expected[: len(found)])
        assert len(asked) == 1


def test_several_controlnets_some_with_maps_of_their_own(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """The second one's maps came with the clip, on both sides; the device draws the first one's."""
    base, controlnet = folders
    models = load_diffusion_models(str(base), controlnets=(str(controlnet),) * 2)
    options = replace(OPTIONS, control_scales=(0.7, 0.4), feature_optimization=False)
    translator = FrescoTranslator(models, load_flow("dis"), options)
    drawn: list[tuple[int, ...]] = []

    def draw(
        frame_HWC: NDArray[np.uint8], options: MapOptions, which: Sequence[int]
    ) -> NDArray[np.uint8]:
        drawn.append(tuple(which))
        return maps_of(frame_HWC, options, which)

    carry, file = None, None
    for window in cut_clip((0, 2, 4, 5), 3, controls=2):
        window = replace(window, given=(1,))
        block = read(window, FRAMES)
        new = FRAMES[list(window.key_numbers)]
        block["controls"][:, :, 1] = new[..., 0]
        task = replace(task_of(window, file=file), options=options)
        translated = Translate(translator, draw)(task, (block,), Reports())
        assert translated is not None
        file = saved(tmp_path, window, block, translated)
        maps = np.stack([[canny(frame), frame[..., 0]] for frame in new])
        prompts = (PROMPT.positive,) * len(new)
        expected = translator.translate(KeyFrameBatch(new, maps, prompts), carry)
        carry = expected.carry
        assert np.array_equal(block["keys"][1:], expected.frames)
        assert carry.controls is not None
        assert np.array_equal(block["carry_controls"], carry.controls)
    assert drawn == [(0,)] * 4


def saved(folder: Path, window: Window, block: Block, translated: Translated) -> Path:
    staging = folder / "staging"
    file = checkpoint.path(staging, window.index)
    file.parent.mkdir(parents=True, exist_ok=True)
    maps = (BY_DEVICE,) * len(window.key_numbers)
    checkpoint.save(staging, window, block, translated, maps)
    return file


class TestCut:
    @pytest.mark.parametrize("batch_size", [3, 4, 5, 8])
    @pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 10, 11, 12, 13])
    def test_what_a_clip_was_cut_into_stays_whole(self, count: int, batch_size: int) -> None:
        numbers = tuple(range(0, 2 * count, 2))
        for window, batch in zip(
            cut_clip(numbers, batch_size), batch_key_frames(numbers, batch_size), strict=True
        ):
            assert cut(window, batch_size) == (batch,)

    @pytest.mark.parametrize("batch_size", [3, 4, 5, 6])
    def test_smaller_batches_follow_the_same_rules(self, batch_size: int) -> None:
        first, second = cut_clip(tuple(range(14)), 8)
        for window in (first, second):
            batches = cut(window, batch_size)
            new = [number for batch in batches for number in batch.new]
            assert tuple(new) == window.key_numbers
            before = window.first_frame
            for batch in batches:
                assert batch.carried == ((0, before) if batch.new[0] else ())
                assert len(batch.frames) <= batch_size + (batch_size < 5)
                before = batch.new[-1]

    def test_half_the_batch_is_the_clip_cut_like_that(
        self, translator: FrescoTranslator, folders: tuple[Path, Path], tmp_path: Path
    ) -> None:
        """Where a window is translated in several batches, each is tied to the one before."""
        handler, found, batches = Translate(translator, maps_of), [], []
        reports = Reports()
        for window in cut_clip(KEYS, 6):
            block = read(window, FRAMES)
            translated = handler(task_of(window, batch_size=3), (block,), reports)
            assert translated is not None
            batches += translated.batches
            found.append(block["keys"][1:])
        assert len(batches) > 3
        assert np.array_equal(np.concatenate(found), directly(translator, tuple(batches)))
        counts = {count for _, count in reports.of("step")}
        assert counts == {2 * len(cut(window, 3)) for window in cut_clip(KEYS, 6)}


class TestWarnings:
    def test_long_prompts_are_told_of_once(self, translator: FrescoTranslator) -> None:
        handler = Translate(translator, maps_of)
        told = []
        for window in cut_clip((0, 1, 2, 3, 4, 5), 3):
            prompt = Prompt("snow " * 80 + "car", "rain " * 80 + "dog")
            task = replace(task_of(window), prompt=prompt, options=LITERAL)
            translated = handler(task, (read(window, FRAMES),), Reports())
            assert translated is not None
            told.append(translated.warnings)
        positive, negative = told[0]
        assert positive.startswith("positive prompt is too long for the text encoder, cut off: ")
        assert negative.endswith("dog")
        assert not any(told[1:])

    def test_of_a_very_long_one_the_beginning_is_quoted(self, translator: FrescoTranslator) -> None:
        (window,) = cut_clip((0,), 5)
        task = replace(task_of(window), prompt=Prompt("snow " * 200_000), options=LITERAL)
        translated = Translate(translator, maps_of)(task, (read(window, FRAMES),), Reports())
        assert translated is not None
        (warning,) = translated.warnings
        assert re.search(r"cut off: snow snow .{280,300}… \(\d{6} characters\)$", warning)

    def test_ordinary_prompts_are_none(self, translator: FrescoTranslator) -> None:
        (window,) = cut_clip((0,), 5)
        translated = Translate(translator, maps_of)(
            replace(task_of(window), options=LITERAL), (read(window, FRAMES),), Reports()
        )
        assert translated is not None
        assert translated.warnings == ()

    def test_prompts_with_weights_may_be_longer(self, translator: FrescoTranslator) -> None:
        prompt = Prompt("snow " * 80 + "car")
        assert prompt_warnings(translator.with_options(LITERAL), prompt)
        assert not prompt_warnings(translator.with_options(OPTIONS), prompt)

    def test_weights_that_are_none_are_told(self, translator: FrescoTranslator) -> None:
        (window,) = cut_clip((0,), 5)
        prompt = Prompt("a (car:9)", "(rain:abc)", (TimedText(0, None, "[snow:0.5]"),))
        task = replace(task_of(window), prompt=prompt)
        translated = Translate(translator, maps_of)(task, (read(window, FRAMES),), Reports())
        assert translated is not None
        assert [warning[:26] for warning in translated.warnings] == [
            "prompt: weight 9 is not wi",
            "prompt: ':0.5' at the end ",
            "prompt: ':abc' at the end ",
        ]
        assert not misread_weights(translator.with_options(LITERAL), prompt)

    def test_words_of_embeddings_that_no_prompt_has_are_told_once(
        self, translator: FrescoTranslator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = {"<rain#0>": 0, "<rain#1>": 1, "<night#0>": 2, "<bad#0>": 3}
        tokenizer = translator.models.tokenizer
        monkeypatch.setattr(tokenizer, "get_added_vocab", lambda: words)
        handler, told = Translate(translator, maps_of), []
        for prompt in (Prompt("night", "(Bad:1.2)"), Prompt("nights")):
            (window,) = cut_clip((0,), 5)
            task = replace(task_of(window), prompt=prompt)
            translated = handler(task, (read(window, FRAMES),), Reports())
            assert translated is not None
            told.append({re.findall("embedding '(.+)':", text)[0] for text in translated.warnings})
        assert told == [{"rain"}, {"night", "bad"}]


class TestPromptsByTime:
    PROMPT = Prompt("a road", "rain", (TimedText(0, 3, "dusk"), TimedText(4, None, "night")))

    def test_every_key_frame_has_its_own(
        self, translator: FrescoTranslator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[tuple[str, ...], str | None]] = []
        translate = FrescoTranslator.translate

        def see(self: FrescoTranslator, batch: KeyFrameBatch, *rest: Any) -> Any:
            seen.append((batch.prompts, batch.negative))
            return translate(self, batch, *rest)

        monkeypatch.setattr(FrescoTranslator, "translate", see)
        handler = Translate(translator, maps_of)
        carried = []
        for window in cut_clip((0, 1, 2, 4, 5, 6), 5):
            task = replace(task_of(window), prompt=self.PROMPT)
            translated = handler(task, (read(window, FRAMES),), Reports())
            assert translated is not None
            carried.append(translated.carry_prompts)
        assert seen == [
            (("a road, dusk",) * 3, "rain"),
            (("a road, night",) * 3, "rain"),
        ]
        assert carried == [("a road, dusk", "a road, dusk"), ("a road, dusk", "a road, night")]

    def test_are_the_same_for_another_process(
        self, translator: FrescoTranslator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Also those of the key frames that it carries over, which it has not translated itself."""
        prompt = Prompt("a road", None, (TimedText(0, 0, "dusk"), TimedText(5, None, "night")))
        seen: list[tuple[str, ...]] = []
        translate = FrescoTranslator.translate

        def see(self: FrescoTranslator, batch: KeyFrameBatch, carry: Any, *rest: Any) -> Any:
            seen.append((*(carry.prompts if carry else ()), *batch.prompts))
            return translate(self, batch, carry, *rest)

        monkeypatch.setattr(FrescoTranslator, "translate", see)
        pictures = []
        for disturbed in (False, True):
            handler, file = Translate(translator, maps_of), None
            for window in cut_clip((0, 2, 4, 5), 3):
                if disturbed:
                    handler = Translate(translator, maps_of)
                block = read(window, FRAMES)
                task = replace(task_of(window, file=file), prompt=prompt)
                translated = handler(task, (block,), Reports())
                assert translated is not None
                file = saved(tmp_path / str(disturbed), window, block, translated)
                pictures.append(block["keys"].tobytes())
        assert seen[:2] == seen[2:]
        assert seen[0] == ("a road, dusk", "a road")
        assert seen[1] == ("a road, dusk", "a road", "a road", "a road, night")
        assert pictures[:2] == pictures[2:]

    def test_those_too_long_are_told_of_where_they_come_first(
        self, translator: FrescoTranslator
    ) -> None:
        night = TimedText(6, None, "snow " * 80)
        handler = Translate(translator, maps_of)
        told = []
        for window in cut_clip((0, 1, 2, 4, 5, 6, 8, 9, 10), 5):
            prompt = Prompt("a road", None, (night,))
            task = replace(task_of(window), prompt=prompt, options=LITERAL)
            translated = handler(task, (read(window, FRAMES),), Reports())
            assert translated is not None
            told.append(len(translated.warnings))
        assert told == [0, 1, 0]


class TestOptions:
    def test_each_task_has_its_own(
        self, folders: tuple[Path, Path], translator: FrescoTranslator
    ) -> None:
        """Jobs one after the other; each as if the handler had never seen another."""
        (window,) = cut_clip((0, 2, 4), 5)
        others = (
            replace(OPTIONS, attention=AttentionOptions(0.9, 0.9)),
            replace(OPTIONS, seed=5, guidance_scale=2.0),
            OPTIONS,
        )
        handler = Translate(translator, maps_of)
        for options in others:
            block = read(window, FRAMES)
            handler(replace(task_of(window), options=options), (block,), Reports())
            alone = Translate(new_translator(folders).with_options(options), maps_of)
            expected = read(window, FRAMES)
            alone(replace(task_of(window), options=options), (expected,), Reports())
            assert np.array_equal(block["keys"], expected["keys"])

    def test_steps_are_the_tasks(self, translator: FrescoTranslator) -> None:
        handler = Translate(translator, maps_of)
        for steps in (3, 6):
            (window,) = cut_clip((0, 2), 5, steps=steps - 2)
            block, reports = read(window, FRAMES), Reports()
            options = replace(OPTIONS, steps=steps)
            handler(replace(task_of(window), options=options), (block,), reports)
            assert reports.of("step")[-1] == (steps - 2, steps - 2)

    def test_maps_are_drawn_with_the_tasks(self, translator: FrescoTranslator) -> None:
        (window,) = cut_clip((0,), 5)
        block = read(window, FRAMES)
        task = replace(task_of(window), map_options=MapOptions(10, 20))
        Translate(translator, maps_of)(task, (block,), Reports())
        assert np.array_equal(block["controls"][BY_DEVICE, 0, 0], cv2.Canny(FRAMES[0], 10, 20))

    @pytest.mark.parametrize(
        "changes", [{"options": replace(OPTIONS, seed=9)}, {"clip": "another"}, {"job": "b"}]
    )
    def test_what_a_job_of_other_options_left_is_not_gone_on_from(
        self, translator: FrescoTranslator, tmp_path: Path, changes: dict[str, Any]
    ) -> None:
        """A job that was begun anew: its first window was translated by another process."""
        handler, (first, second, *_) = Translate(translator, maps_of), cut_clip(KEYS, 5)
        block = read(first, FRAMES)
        translated = handler(task_of(first), (block,), Reports())
        assert translated is not None
        block["keys"][:] = 77
        file = saved(tmp_path, first, block, translated)
        block = read(second, FRAMES)
        handler(replace(task_of(second, file=file), **changes), (block,), Reports())
        assert (block["keys"][0] == 77).all()


class TestFlows:
    def test_are_those_of_neighbouring_frames(self, translator: FrescoTranslator) -> None:
        (window,) = cut_clip((0, 12), 5, flows=True)
        block, reports = read(window, FRAMES), Reports()
        assert window.frame_count - 1 > FLOW_PAIRS
        Translate(translator, maps_of)(task_of(window), (block,), reports)
        frames_T3HW = torch.from_numpy(FRAMES[:13]).permute(0, 3, 1, 2)
        both = load_flow("dis")(frames_T3HW[:-1], frames_T3HW[1:])
        for side, flow in enumerate(both):
            assert np.array_equal(block["flows"][side], flow.numpy().astype(np.float16))
        assert reports.of("flow") == [(0, 12), (8, 12), (12, 12)]

    def test_can_be_found_again(self, translator: FrescoTranslator) -> None:
        (window,) = cut_clip((0, 3), 5, flows=True)
        blocks = [read(window, FRAMES) for _ in range(2)]
        handler = Translate(translator, maps_of)
        handler(task_of(window), (blocks[0],), Reports())
        assert handler(FindFlows(window), (blocks[1],), Reports()) is None
        assert np.array_equal(blocks[0]["flows"], blocks[1]["flows"])

    def test_of_a_single_frame(self, translator: FrescoTranslator) -> None:
        (window,) = cut_clip((0,), 5, flows=True)
        Translate(translator, maps_of)(task_of(window), (read(window, FRAMES),), Reports())


class TestErrors:
    def run(
        self, monkeypatch: pytest.MonkeyPatch, translator: FrescoTranslator, error: Exception
    ) -> None:
        """One window with a translator that raises for more than four key frames."""
        original = FrescoTranslator.translate

        def translate(self, batch, carry=None, on_step=None):  # type: ignore[no-untyped-def]
            if len(batch.frames) + (2 if carry else 0) > 4:
                raise error
            return original(self, batch, carry, on_step)

        monkeypatch.setattr(FrescoTranslator, "translate", translate)
        window, *_ = cut_clip(KEYS, 6)
        handler = Translate(translator, maps_of)
        block = read(window, FRAMES)
        handler(task_of(window, batch_size=4), (block,), Reports())
        assert block["keys"][-1].any()
        handler(task_of(window, batch_size=6), (block,), Reports())

    def test_out_of_memory(
        self, monkeypatch: pytest.MonkeyPatch, translator: FrescoTranslator
    ) -> None:
        error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore.")
        with pytest.raises(OutOfDeviceMemory, match=r"allocate 2 GiB\.$"):
            self.run(monkeypatch, translator, error)

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory."),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
            RuntimeError("Triton Error [CUDA]: out of memory"),
        ],
    )
    def test_what_is_kept_of_other_sizes_goes_before_a_batch_is_too_large(
        self, monkeypatch: pytest.MonkeyPatch, translator: FrescoTranslator, error: Exception
    ) -> None:
        kept, tries = True, 0
        original = FrescoTranslator.translate

        def translate(self, *arguments):  # type: ignore[no-untyped-def]
            nonlocal tries
            tries += 1
            if kept:
                raise error
            return original(self, *arguments)

        def release(_: FrescoTranslator) -> bool:
            nonlocal kept
            kept = False
            return True

        monkeypatch.setattr(FrescoTranslator, "translate", translate)
        monkeypatch.setattr(FrescoTranslator, "release", release)
        (window,) = cut_clip((0, 2), 5)
        block, handler = read(window, FRAMES), Translate(translator, maps_of)
        handler(task_of(window), (block,), Reports())
        assert block["keys"][-1].any()
        assert tries == 2
        kept = True
        monkeypatch.setattr(FrescoTranslator, "release", lambda _: False)
        with pytest.raises(OutOfDeviceMemory):
            handler(task_of(window), (block,), Reports())
        assert tries == 3

    @pytest.mark.parametrize(
        "text",
        [
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate",
            "CUDA error: out of memory",
            "Triton Error [CUDA]: out of memory",
        ],
    )
    def test_out_of_memory_in_a_library(
        self, monkeypatch: pytest.MonkeyPatch, translator: FrescoTranslator, text: str
    ) -> None:
        with pytest.raises(OutOfDeviceMemory):
            self.run(monkeypatch, translator, RuntimeError(text))

    @pytest.mark.parametrize(
        "text",
        [
            "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be",
            "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
            "CUDA error: invalid argument",
            "Triton Error [CUDA]: an illegal memory access was encountered",
        ],
    )
    def test_a_broken_context(
        self, monkeypatch: pytest.MonkeyPatch, translator: FrescoTranslator, text: str
    ) -> None:
        kind = getattr(torch, "AcceleratorError", RuntimeError)
        for error in (RuntimeError(text), kind(text)):
            with pytest.raises(FatalError) as caught:
                self.run(monkeypatch, translator, error)
            assert not isinstance(caught.value, OutOfDeviceMemory)
            assert "\n" not in str(caught.value)
            monkeypatch.undo()

    @pytest.mark.parametrize("error", [RuntimeError("shapes"), MemoryError(), ValueError("x")])
    def test_others_are_left_alone(
        self, monkeypatch: pytest.MonkeyPatch, translator: FrescoTranslator, error: Exception
    ) -> None:
        with pytest.raises(type(error)) as caught:
            self.run(monkeypatch, translator, error)
        assert caught.value is error

    def test_tasks_of_others_are_refused(self, translator: FrescoTranslator) -> None:
        (window,) = cut_clip((0,), 5)
        with pytest.raises(TypeError, match="no task of a device: int"):
            Translate(translator)(1, (read(window, FRAMES),), Reports())


class TestNoPicture:
    @staticmethod
    def broken_in_half_precision(translator: FrescoTranslator) -> None:
        """A VAE that makes NaN unless it computes in float32."""
        last = translator.models.vae.decoder.conv_out

        def spoil(_: object, __: object, out: torch.Tensor) -> torch.Tensor:
            return out if out.dtype == torch.float32 else out * float("nan")

        last.register_forward_hook(spoil)

    def test_the_vae_has_a_second_try_in_float32(self, folders: tuple[Path, Path]) -> None:
        translator = new_translator(folders, torch.bfloat16)
        (window,) = cut_clip((0, 2), 5)
        with translator.codec.in_float32():
            frames = FRAMES[[0, 2]]
            maps = np.stack([canny(frame) for frame in frames])[:, None]
            expected = translator.translate(KeyFrameBatch(frames, maps, ("a car",) * 2)).frames
        self.broken_in_half_precision(translator)
        handler = Translate(translator, maps_of, {"dtype": "bfloat16"})
        for _ in range(2):
            block = read(window, FRAMES)
            translated = handler(task_of(window), (block,), Reports())
            assert translated is not None
            assert translated.warnings == (
                "key frames 0 to 2: no pictures in bfloat16, done again with the VAE in float32",
            )
            assert np.array_equal(block["keys"][1:], expected)
            assert translator.codec.dtype == torch.bfloat16

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_broken_weights_fail_with_the_reason(
        self, folders: tuple[Path, Path], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        translator = new_translator(folders, dtype)
        translator.models.unet.conv_out.bias.data.fill_(float("nan"))
        tries = []
        original = FrescoTranslator.translate

        def translate(self, *arguments):  # type: ignore[no-untyped-def]
            tries.append(self.codec.dtype)
            return original(self, *arguments)

        monkeypatch.setattr(FrescoTranslator, "translate", translate)
        (window,) = cut_clip((0, 2), 5)
        with pytest.raises(NoPictureError, match="NaN"):
            Translate(translator, maps_of)(task_of(window), (read(window, FRAMES),), Reports())
        assert tries == list(dict.fromkeys([dtype, torch.float32]))
