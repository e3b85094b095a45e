from __future__ import annotations

import pytest

from zenml_cooper._text import count, sanitize, seconds, size


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x07", "link"),
        ("\x1b]0;never ended", ""),
        ("\x1b[2J\x1b[Hcleared", "cleared"),
        ("\x9b31mC1", "31mC1"),
        ("10%\r 50%\r100%", "100%"),
        ("100%\r", "100%"),
        ("100%\r\n", "100%"),
        ("a\tb", "a   b"),
        ("bell\x07back\x08", "bellback"),
        ("\u202eright to left\u2066", "right to left"),
        ("grüße 漢字", "grüße 漢字"),
        ("\x1b", ""),
        ("\x1b(B\x1b=kept", "kept"),
    ],
)
def test_sanitize(raw: str, shown: str) -> None:
    assert sanitize(raw) == shown


def test_nothing_harmful_is_left_of_any_character() -> None:
    for code in range(0x3000):
        for text in (chr(code), f"\x1b{chr(code)}", f"\x1b[{chr(code)}", f"a{chr(code)}b"):
            shown = sanitize(text)
            assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in shown), repr(text)


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_949, "99.9 kB"), (99_960, "100 kB"), (999_400, "999 kB"),
     (999_600, "1.0 MB"), (12_345_678, "12.3 MB"), (5 * 10**9, "5.0 GB"), (7 * 10**12, "7.0 TB")],
)  # fmt: skip
def test_size(number: int, shown: str) -> None:
    assert size(number) == shown


def test_seconds_and_counts() -> None:
    assert [seconds(value) for value in (0.04, 12.34, 99.94, 99.96, 125.4, 3600)] == [
        "0.0 s",
        "12.3 s",
        "99.9 s",
        "1 min 40 s",
        "2 min 05 s",
        "60 min 00 s",
    ]
    assert [count(number, "file") for number in (0, 1, 1234)] == ["0 files", "1 file", "1,234 files"]
