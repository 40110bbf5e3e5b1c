"""``python -m daemon`` is ``frescod``."""

from daemon.cli import main

main()
