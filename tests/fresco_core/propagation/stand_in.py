"""A stand-in for the ebsynth program: the same command line, made to behave as a test wants."""

import json
import sys
from pathlib import Path
from typing import Any

# The picture of the first guide's target is passed off as its work.
_PROGRAM = """\
#!{python} -IS
import json, os, shutil, signal, struct, sys, time
from array import array

told = json.dumps({{"arguments": sys.argv[1:], "threads": os.environ.get("OMP_NUM_THREADS"),
                    "pid": os.getpid(), "folder": os.getcwd()}})
with open({calls!r}, "a") as calls:
    calls.write(told + "\\n")
values = sys.argv[1:]
style = values[values.index("-style") + 1]
source, target = values[values.index("-guide") + 1 : values.index("-guide") + 3]
output = values[values.index("-output") + 1]
{behaviour}
"""

COPY = "shutil.copy(target, output)"


def error_map(values: str, name: str = "errors.bin") -> str:
    """Code that writes an error map beside the output; ``values``: code of a list."""
    return f"""
values = array("f", {values})
with open({name!r}, "wb") as file:
    file.write(struct.pack("<Q", len(values)) + values.tobytes())
"""


class StandIn:
    """The program, and how it was called: ``behaviour`` is the Python code of what it does."""

    def __init__(self, folder: Path, behaviour: str = COPY) -> None:
        self.path = folder / "eb synth"  # no shell comes near it
        self._calls = folder / "calls.jsonl"
        self.path.write_text(
            _PROGRAM.format(python=sys.executable, calls=str(self._calls), behaviour=behaviour)
        )
        self.path.chmod(0o755)

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Arguments, number of threads, process and folder of each run."""
        if not self._calls.exists():
            return []
        return [json.loads(line) for line in self._calls.read_text().splitlines()]
