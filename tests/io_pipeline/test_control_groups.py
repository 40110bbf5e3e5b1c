from pathlib import Path

import pytest

from io_pipeline import control_groups


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        (
            "0::/system.slice/frescod.service\n",
            ["system.slice/frescod.service", "system.slice", ""],
        ),
        ("12:memory:/old\n0::/\n", [""]),
        ("12:memory:/old\n", [""]),  # version 1 only: what is at the top is all there may be
    ],
)
def test_own_group_and_all_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, groups: list[str]
) -> None:
    monkeypatch.setattr(control_groups, "MEMBERSHIP", tmp_path / "cgroup")
    assert list(control_groups.control_groups()) == []
    (tmp_path / "cgroup").write_text(text)
    expected = [control_groups.ROOT / group for group in groups]
    assert list(control_groups.control_groups()) == expected
