"""``docs/service.md`` names settings, log actions, commands and files that there are."""

import re

from daemon.actions import Action
from daemon.cli import cli
from daemon.config import keys
from daemon.install_service import PLACES
from daemon.setup_commands import doctor, install_service
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "service.md"
TEXT = PAGE.read_text(encoding="utf-8")
CODE = re.findall(r"`([^`\n]+)`", TEXT) + re.findall(r"^```\n(.*?)^```", TEXT, re.M | re.S)


def test_settings_and_actions_exist() -> None:
    known = {key for key, _ in keys()} | {str(action) for action in Action}
    named = {
        word
        for text in CODE
        for word in re.findall(r"(?<![\w./-])[a-z]+\.[a-z_]+(?![\w./*])", text)
    }
    named -= {"frescod.service", "config.toml", "control.sock", "metrics.conf"}
    named -= {"crossing.mp"}
    assert named - known == set()
    assert {"service.drain_seconds", "job.failed"} <= named


def test_commands_exist() -> None:
    commands = set(cli.commands) | {doctor.name, install_service.name}
    for name in re.findall(r"(?:^|`|-- |frescod )frescod ([a-z-]+)", "\n".join(CODE), re.M):
        assert name in commands, name


def test_files_are_those_that_are_written() -> None:
    for place in PLACES.values():
        assert f"`/{place}`" in TEXT
    for link in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (PAGE.parent / link).exists(), link
