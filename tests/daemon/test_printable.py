import pytest

from daemon.printable import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.mp4", "plain name.mp4"),
        ("Straße 雪 🚗", "Straße 雪 🚗"),
        ("two\nlines", "two\\nlines"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\udcff", "\\udcff"),
    ],
)
def test_printable(name: str, shown: str) -> None:
    assert printable(name) == shown
    printable(name).encode()
