"""Opening another set or an earlier session, while the page stays usable."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from workbench.data.pairs import PreferenceSet
from workbench.data.sources import list_sources, open_source
from workbench.engine.session import Session
from workbench.engine.workspace import Sessions
from workbench.errors import WorkbenchError

RECENT = 12
_SET, _SESSION = "set:", "session:"


class Opener:
    """Opens sets as new sessions with the models of the session at hand.

    Args:
        workspace: Where sessions live.
        session: The session of the page.
        go: Called with the id of the session that the page is to show.
    """

    def __init__(self, workspace: Sessions, session: Session, go: Callable[[str], None]) -> None:
        self._workspace = workspace
        self._session = session
        self._go = go
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="opening")
        self._waiting: Future[PreferenceSet] | None = None
        self.note = ""

    def choices(self) -> list[dict[str, str]]:
        """What can be opened, as items of a menu; `opens` is the word that `open` takes."""
        sets = [
            {"label": source.title, "icon": "table_rows", "opens": _SET + source.name}
            for source in list_sources()
        ]
        others = [
            (session_id, card)
            for session_id, card in self._workspace.sessions()
            if session_id != self._session.session_id
        ]
        earlier = [
            {"label": f"{card.title[:40]} · session {session_id[:5]}", "icon": "history",
             "opens": _SESSION + session_id}
            for session_id, card in others[:RECENT]
        ]  # fmt: skip
        return sets + earlier

    def open(self, choice: str) -> None:
        """Open what `choices` or the user named: a set, a hub id, or an earlier session.

        Raises:
            DataError: a set that this user must not open.
        """
        if choice.startswith(_SESSION):
            self._go(choice.removeprefix(_SESSION))
            return
        name = choice.removeprefix(_SET)
        self._workspace.check_source(name)
        self.note = f"opening {name}"
        self._waiting = self._thread.submit(open_source, name, self._told)

    def take(self, pairs: PreferenceSet) -> None:
        """Show a set in a session of its own."""
        models = self._session.models
        self._go(self._workspace.create(pairs, models["policy"], models["reference"]).session_id)

    def poll(self) -> str:
        """Go on if the set has arrived; the failure's message if it cannot be had."""
        if self._waiting is None or not self._waiting.done():
            return ""
        found, self._waiting, self.note = self._waiting, None, ""
        try:
            self.take(found.result())
        except WorkbenchError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """Let go of the thread; what it fetches is still kept for next time."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _told(self, note: str) -> None:
        self.note = note
