"""Text from outside, such as file names and addresses, made safe to show in a terminal, a log or a label."""

from __future__ import annotations

import hashlib
import re
import unicodedata

__all__ = ["identifier", "printable"]

MAX_CHARACTERS = 300


def printable(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Return a text as one line of printable characters.

    Line breaks and other white space become single spaces. Invisible format characters, such as those that
    change the direction of writing, are removed. Control characters, bytes that are not UTF-8 and unassigned
    characters become U+FFFD.

    Args:
        text: Any text; bytes of a file name that are not UTF-8 are surrogates in it.
        limit: Maximum length in characters; a longer text ends in an ellipsis.
    """
    # A very long text is cut first, so that the time does not depend on its length.
    shown = " ".join("".join(map(_printable_character, text[: 2 * limit + 100])).split())
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def _printable_character(character: str) -> str:
    if character.isprintable():
        return character
    if character.isspace():
        return " "
    return "" if unicodedata.category(character) == "Cf" else "\N{REPLACEMENT CHARACTER}"


def identifier(text: str) -> str:
    """Return an ASCII name for files and topics: letters, digits, `-` and `_`, at most 56 characters.

    A text that has another form gets a short hash, so that different texts have different names.

    Args:
        text: Any text, such as the name of a stream.
    """
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_")[:48]
    if safe == text:
        return safe
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:6]
    return f"{safe}-{digest}" if safe else digest
