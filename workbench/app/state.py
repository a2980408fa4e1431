"""What belongs to one open page: settings, selection, and the values drawn from them."""

from collections.abc import Callable
from typing import Any

import param

from workbench.engine.document import StateDocument
from workbench.engine.live import LiveTables
from workbench.engine.session import Session
from workbench.engine.settings import Settings, SettingsError
from workbench.errors import WorkbenchError

PAGES = ("Pairs", "Rewards", "Ranking", "DID", "Fairness", "Attribution", "Train", "Studies")


class PageState(param.Parameterized):
    """One browser tab's view of a session; pages watch its parameters.

    `settings`, `selected` (a pair id), `page`, `study` and `group_by` (an attribute's name or "")
    are kept in the address; `changed` is triggered when pairs or scores change.
    """

    settings = param.ClassSelector(class_=Settings, default=Settings())
    selected = param.String("")
    page: Any = param.Selector(objects=list(PAGES), default=PAGES[0])
    group_by = param.String("")
    dark = param.Boolean(False)
    changed = param.Event()
    study = param.String("", doc="Slug of the study that is open on Studies; empty for none.")
    message = param.String(
        "", doc="What to tell the user now, for example why an edit was refused."
    )

    def __init__(self, session: Session, **params: Any) -> None:  # noqa: ANN401 - param's own
        super().__init__(**params)  # type: ignore[no-untyped-call]
        self.session = session
        self.tables = LiveTables(session)
        self.download: Callable[[str, bytes], None] = lambda name, content: None
        self._seen = session.version

    @property
    def theme(self) -> str:
        """The name of the theme as the widgets want it."""
        return "dark" if self.dark else "light"

    def poll(self) -> bool:
        """Notice what the worker or another tab changed; True if there was anything."""
        if self.session.version == self._seen:
            return False
        self._seen = self.session.version
        self.param.trigger("changed")
        return True

    def change(self, **settings: Any) -> None:  # noqa: ANN401 - the settings' own types
        """Change some settings; a value out of range becomes a message."""
        try:
            self.settings = self.settings.replaced(**settings)
            self.message = ""
        except SettingsError as error:
            self.message = str(error)

    def doing(self, action: Callable[[], object]) -> Callable[[object], None]:
        """A button's callback that attempts `action`."""

        def act(_: object) -> None:
            self.attempt(action)

        return act

    def attempt(self, action: Any, *arguments: Any) -> bool:  # noqa: ANN401 - any callable
        """Do something that a user asked for; its refusal becomes a message.

        Returns whether it was done.
        """
        try:
            action(*arguments)
        except WorkbenchError as error:
            self.message = str(error)
            return False
        self.message = ""
        self.poll()
        return True

    @property
    def selected_row(self) -> int | None:
        """Where the selected pair stands in the set; None when it is gone."""
        pairs = self.session.snapshot().pairs
        return pairs.index(self.selected) if self.selected in pairs else None

    def step_selection(self, by: int) -> None:
        """Select the pair `by` places after (or before) the selected one."""
        row, last = self.selected_row, len(self.session.snapshot().pairs) - 1
        self.select_row(max(0, min(last, row + by)) if row is not None else 0)

    def select_row(self, row: int) -> None:
        """Select a pair by its place, for example from a click on a figure."""
        pairs = self.session.snapshot().pairs.pairs
        if 0 <= row < len(pairs):
            self.selected = pairs[row].pair_id

    def document(self) -> StateDocument:
        """What a state file keeps."""
        models = self.session.models
        return StateDocument(
            self.settings, models["policy"], models["reference"], self.page, self.selected,
            self.group_by,
        )  # fmt: skip

    def show(self, document: StateDocument) -> None:
        """Take up a state file, except its models; a page or pair that is not here is left."""
        self.param.update(
            settings=document.settings,
            page=document.page if document.page in PAGES else self.page,
            selected=document.selected,
            group_by=document.group_by,
        )

    def to_query(self) -> dict[str, str]:
        """Everything that the address keeps."""
        query = {"session": self.session.session_id, **self.settings.to_query()}
        kept = {
            "page": self.page,
            "pair": self.selected,
            "group": self.group_by,
            "study": self.study,
        }
        return query | {key: value for key, value in kept.items() if value and value != PAGES[0]}

    def read_query(self, query: dict[str, str]) -> None:
        """Take up an address; what it gets wrong becomes a message, the rest holds."""
        try:
            self.settings = Settings.from_query(query)
        except SettingsError as error:
            self.message = str(error)
        self.page = query["page"] if query.get("page") in PAGES else self.page
        self.selected = query.get("pair", self.selected)
        self.group_by = query.get("group", self.group_by)
        self.study = query.get("study", self.study)
