from pathlib import Path

import av
import numpy as np

from daemon.demo_clip import SAMPLE_RATE, draw_frame, engine_hum, render_clip


def test_frames_move(tmp_path: Path) -> None:
    first, second = draw_frame(256, 192, 0), draw_frame(256, 192, 1 / 12)
    assert first.shape == (192, 256, 3)
    assert first.dtype == np.uint8
    changed = (first != second).any(axis=2).mean()
    assert 0.01 < changed < 0.3


def test_sound_is_heard_and_does_not_clip() -> None:
    sound = engine_hum(2)
    assert sound.shape == (2 * SAMPLE_RATE,)
    assert 0.1 < np.abs(sound).max() < 1


def test_clip_has_frames_rate_and_sound(tmp_path: Path) -> None:
    render_clip(tmp_path / "a.mp4", width=128, height=96, frames=9, rate=12)
    with av.open(str(tmp_path / "a.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.width, video.height, video.frames) == (128, 96, 9)
        assert video.average_rate == 12
        assert audio.rate == SAMPLE_RATE
        assert abs(float(audio.duration * audio.time_base) - 9 / 12) < 0.1
