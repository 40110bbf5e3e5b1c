"""The order of names in which people count."""

import re


def natural_order(name: str) -> tuple[list[int | str], str]:
    """Sort key in which numbers count by value, so that ``clip2`` comes before ``clip10``.

    >>> sorted(["clip10", "clip2", "Clip1"], key=natural_order)
    ['Clip1', 'clip2', 'clip10']
    """
    parts = re.split("([0-9]+)", name.casefold())
    # Text and numbers alternate, so a number is never compared with text.
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name
