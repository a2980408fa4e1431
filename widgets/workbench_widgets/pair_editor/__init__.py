"""A virtual table and editor of preference pairs."""

from typing import Any

FIRST_QUERY: dict[str, Any] = {
    "text": "", "filters": {}, "sort": None, "offset": 0, "limit": 80, "request": 0,
}  # fmt: skip
"""What a table asks for before anyone has filtered, sorted or scrolled."""
