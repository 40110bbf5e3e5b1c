"""docs/settings.md is what the settings are.

python -m tests.daemon.test_settings_page    writes it
"""

import json
from collections.abc import Iterator

from daemon.base_config import NETWORKS, RUN_EBSYNTH, SETTING
from daemon.config import allowed, keys
from daemon.job_settings import ALLOWED
from daemon.presets import PRESETS
from daemon.settings import Settings
from tests.conftest import ROOT

PAGE = ROOT / "docs/settings.md"

HEAD = """\
# Settings

Every key of `config.toml`, as `frescod check-config` prints it with its value. It is read from the
folder a command is started in, or from `--config FILE`; `frescod serve` looks for
`/etc/frescod/config.toml` last. Each of these goes before the one above it:

1. the defaults below
2. `config.toml`
3. `--base-config YAML`, a job file of the published FRESCO, whose prompts are read literally
   ([what its keys become](from-fresco.md))
4. `--preset NAME` in the order given, then `--preview`; see [presets](#presets)
5. `--set KEY=VALUE`, then `--control-type`, `--devices` and `--seed`
6. `<stem>.toml` beside a clip, for that clip: its `preset`, then its own keys

A value in `--set` is text, or TOML where it begins with a quote or a bracket; a list may be text
with commas between: `--set translation.seed=7`, `--set control.type=hed,depth`,
`--set models.loras=night.safetensors:0.8`, `--set 'models.loras=["with, comma.safetensors"]'`.
Unknown keys are refused with the nearest name, bad values with what is allowed; the exit code is
78.

A clip's own file may have the keys marked *yes*, and beside them `priority = N` (-1000 to 1000; the
higher are taken first) and `preset = "NAME"`, or a list of names. What is not marked is loaded once
for all clips, or is not for the owner of a clip to choose.
"""


def page() -> str:
    """The whole text."""
    lines = [HEAD, *_sections(), *_presets()]
    return "\n".join(lines)


def _sections() -> Iterator[str]:
    values = Settings().model_dump(mode="json")
    old = {ours: name for name, ours in SETTING.items()} | {"output.frames": RUN_EBSYNTH}
    for name, (file, model, _) in NETWORKS.items():
        old |= {file: name, model: name}
    section = None
    for key, field in keys():
        table, _, name = key.rpartition(".")
        if table != section:
            section = table
            about = (Settings.model_fields[table].annotation.__doc__ or "").strip() if table else ""
            yield f"## {table or 'At the top of the file'}\n"
            if about:
                yield f"{about}\n"
            yield "| key | default | allowed | meaning | one clip | old YAML |"
            yield "| --- | --- | --- | --- | --- | --- |"
        default = json.dumps(values[table][name] if table else values[name])
        meaning = (field.description or "").replace("|", "\\|").replace("<", "\\<")
        one_clip = "yes" if key in ALLOWED else ""
        yaml = f"`{old[key]}`" if key in old else ""
        row = [f"`{key}`", f"`{default}`", allowed(field), meaning, one_clip, yaml]
        yield "| " + " | ".join(row) + " |"
        if key == [k for k, _ in keys() if k.rpartition(".")[0] == table][-1]:
            yield ""


def _presets() -> Iterator[str]:
    yield "## Presets\n"
    for name, preset in PRESETS.items():
        yield f"### {name}\n\n{preset.about}\n\n```toml"
        yield from (f"{key} = {json.dumps(value)}" for key, value in preset.values.items())
        yield "```\n"
    yield "`--preview` is `--preset preview`, after all others."
    yield ""


def test_the_page_is_true() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_key_has_a_row() -> None:
    text = page()
    for key, _ in keys():
        assert text.count(f"\n| `{key}` | ") == 1, key
    for name in [*SETTING, *NETWORKS, RUN_EBSYNTH]:
        assert f"`{name}` |" in text, name


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
