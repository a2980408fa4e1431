"""One module a page; `Page` is what the application asks of each."""

from typing import Any, Protocol


class Page(Protocol):
    """A page: something to show, and how to bring it up to date."""

    view: Any

    def refresh(self) -> None:
        """Draw everything from the state; called only while the page is shown."""
        ...

    def mark(self) -> None:
        """The selected pair changed, nothing else."""
        ...

    def answered(self) -> None:
        """The worker has come further with a slow question that the page asked."""
        ...
