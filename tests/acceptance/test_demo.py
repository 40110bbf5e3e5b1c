"""``frescod demo`` does the whole thing, without a download."""

from pathlib import Path

import av
import cv2

from tests.acceptance.test_run import frescod


def test_demo(tmp_path: Path) -> None:
    result = frescod("demo", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    places = {
        line.split("  ")[1]: Path(line.split()[-1])
        for line in result.stdout.partition("demo finished")[2].splitlines()
        if line.startswith("  ")
    }
    assert set(places) == {"clip", "result", "comparison", "contact sheet"}
    frames = {}
    for name in ("clip", "result", "comparison"):
        with av.open(str(tmp_path / places[name])) as container:
            frames[name] = sum(1 for _ in container.decode(video=0))
    assert frames == {"clip": 24, "result": 24, "comparison": 24}
    with av.open(str(tmp_path / places["result"])) as container:
        assert len(container.streams.audio) == 1
    assert cv2.imread(str(tmp_path / places["contact sheet"])) is not None
