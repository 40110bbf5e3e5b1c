"""Errors that speak to a user: one line that names the file and the remedy."""


def brief(error: BaseException, most: int = 200) -> str:
    """What a library says of an error, in one line of so many characters; else the error's name."""
    return " ".join(str(error).split())[:most] or type(error).__name__


class FrescodError(Exception):
    """An error whose message is meant for the user as it stands: what is wrong, what to do.

    ``exit_code`` is the process exit code when the error ends the program.
    """

    exit_code = 1


class ClipError(FrescodError):
    """A clip or its prompt cannot be used; other clips are unaffected."""


class ConfigError(FrescodError):
    """A setting has an unknown name or a value out of range."""

    exit_code = 78


class ModelsError(FrescodError):
    """Weights are missing, truncated or of the wrong architecture."""

    exit_code = 78


class NoPictureError(FrescodError):
    """The networks produced NaN, infinity, or black where the input is not."""


class KernelsError(FrescodError):
    """A GPU kernel cannot be built on this machine, and nothing else can take its place."""
