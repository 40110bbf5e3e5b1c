"""What `frescod run` is to translate: a folder of clips, or the one clip of an old job file."""

from dataclasses import dataclass
from pathlib import Path

import click

from daemon.folder_scan import CLIP_SUFFIXES, is_clip, is_hidden
from daemon.printable import printable
from fresco_core.errors import ClipError, ConfigError
from io_pipeline.prompt import parse_prompt

OUTPUT = Path("output")


@dataclass(frozen=True)
class RunInput:
    """Clips, their prompts, and where results go.

    Attributes:
        clips: the folder they are in.
        prompts: the folder that their prompt files are in.
        output: gets a folder for each clip.
        only: the file name of the one clip that counts; None: all.
        prompt: of clips without a prompt file, as such a file has it; None: these are skipped.
    """

    clips: Path
    prompts: Path
    output: Path
    only: str | None = None
    prompt: str | None = None


def run_input(
    video_folder: Path | None,
    prompt_folder: Path | None,
    output_folder: Path | None,
    prompt: str | None,
    base_config: Path | None,
) -> RunInput:
    """What the options mean; ``base_config`` names clip, prompt and output where they do not.

    Raises:
        click.UsageError: there is nothing to translate; the prompt is none.
        ConfigError: the clip or the prompt that ``base_config`` names is none.
    """
    if prompt is not None:
        try:
            parse_prompt(prompt.encode(errors="surrogateescape"), "--prompt")
        except ClipError as error:
            raise click.UsageError(printable(str(error))) from error
    if video_folder is not None:
        output = output_folder or OUTPUT
        return RunInput(video_folder, prompt_folder or video_folder, output, prompt=prompt)
    if base_config is None:
        raise click.UsageError("missing option --video-folder: where are the clips?")
    from daemon.base_config import read_base_config  # imports YAML, which few need

    job = read_base_config(base_config)
    if job.clip is None:
        raise click.UsageError(
            f"missing option --video-folder: {printable(base_config)} names no file_path either"
        )
    folder = job.clip.parent
    _check_clip(job.clip, base_config)
    if prompt is None and job.prompt is not None:
        prompt = job.prompt
        try:
            parse_prompt(prompt.encode(errors="surrogateescape"), f"{base_config}: prompt")
        except ClipError as error:
            raise ConfigError(str(error)) from error
    output = output_folder or job.output or OUTPUT
    return RunInput(folder, prompt_folder or folder, output, job.clip.name, prompt)


def without_prompt(clip: str, prompts: Path) -> str:
    """What is said of the only clip of a run if no prompt is there for it."""
    return (
        f"{printable(clip)}: has no prompt: give --prompt, a prompt in the --base-config "
        f"file, or {printable(Path(clip).stem)}.txt in {printable(prompts)}"
    )


def _check_clip(clip: Path, base_config: Path) -> None:
    """Raise ConfigError where this is no clip that would be found in its folder."""
    if not clip.is_file():
        why = "there is no such file"
    elif not is_clip(clip.name):
        why = f"a clip's name ends in one of {' '.join(sorted(CLIP_SUFFIXES))}"
        if clip.suffix.lower() in CLIP_SUFFIXES:
            why = "by its name it has the control maps of a clip"
    elif is_hidden(clip.name):
        why = "it is hidden"
    else:
        return
    raise ConfigError(
        f"{printable(base_config)}: file_path = {printable(clip)}: {why}: correct it, or give "
        "--video-folder"
    )
