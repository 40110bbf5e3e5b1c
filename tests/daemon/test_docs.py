"""The pages under docs/ name what there is: files, headings, settings, options, YAML keys."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from daemon.base_config import KEYS
from daemon.cli import cli
from daemon.command_settings import assignment
from daemon.config import Layer, checked, keys
from daemon.settings import Settings
from tests.conftest import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
NAMES = [page.name for page in PAGES]


def commands(text: str) -> Iterator[list[str]]:
    """The words of every frescod command line in a block of code or in backticks."""
    text = text.replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(frescod [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in lines:
        if line.startswith("frescod "):
            yield shlex.split(line, comments=True)[1:]


def options(words: list[str]) -> dict[str, object]:
    """What click reads from them; names are checked, values are not."""
    command: click.Command = cli
    context = click.Context(cli, info_name="frescod", token_normalize_func=lambda n: n)
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, name
        command = found
    values, _, _ = command.make_parser(click.Context(command)).parse_args(list(words))
    return dict(values)


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
class TestPage:
    def test_links_lead_somewhere(self, page: Path) -> None:
        for link in re.findall(r"\]\(([^):]+)\)", page.read_text(encoding="utf-8")):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link

    def test_commands_have_the_options_they_name(self, page: Path) -> None:
        for words in commands(page.read_text(encoding="utf-8")):
            given = options(words).get("assignments") or ()
            assert isinstance(given, tuple | list)
            checked(Layer(" ".join(words), dict(map(assignment, given)), typed=False))


@pytest.mark.parametrize(
    "name", ["from-fresco.md", "prompts.md", "settings.md", "troubleshooting.md"]
)
def test_settings_exist(name: str) -> None:
    sections = "|".join(Settings.model_fields)
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    named = set(re.findall(rf"[`\s]((?:{sections})\.[a-z_0-9]+)\b", text)) - {"control.sock"}
    assert named
    assert named <= {key for key, _ in keys()}


def test_every_key_of_an_old_file_is_explained() -> None:
    text = (ROOT / "docs/from-fresco.md").read_text(encoding="utf-8")
    table = text.partition("## Every key of the YAML")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(KEYS)
