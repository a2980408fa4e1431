"""One module a page; `Page` is what the application asks of each."""

from typing import Any, Protocol, runtime_checkable


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


@runtime_checkable
class LivePage(Page, Protocol):
    """A page that moves by itself while it is shown."""

    def tick(self) -> None:
        """Look for news; called ten times a second, so it does nothing where there is none."""
        ...
