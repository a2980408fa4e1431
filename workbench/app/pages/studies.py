"""Studies: a gallery of papers, each a study to run, measure and check.

Nothing here knows any one study: cards, knobs, inputs, figures, tables and claims are all made from
what the study declares.
"""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import panel as pn

from workbench.app.pages.studies_parts import StudyGallery
from workbench.app.pages.studies_view import StudyView
from workbench.app.state import PageState
from workbench.study.base import Study
from workbench.study.catalogue import Catalogue, open_catalogue
from workbench.study.runs import RunStore
from workbench.study.verdicts import VerdictBook
from workbench.study.words import SIGNS, authors_of

_LOADING = "Loading the studies …"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shelf:
    """What the gallery shows, and what its cards open."""

    studies: dict[str, Study[Any, Any]]
    cards: list[dict[str, Any]]
    failures: list[dict[str, str]]


class StudiesPage:
    """The gallery, or the study that was opened from it."""

    def __init__(self, state: PageState, store: RunStore | None = None) -> None:
        self._state = state
        self._store = store or RunStore()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="studies")
        self._loading: Future[Shelf] | None = None
        self._shelf: Shelf | None = None
        self._open: StudyView | None = None
        self.gallery = StudyGallery(theme=state.theme, note=_LOADING)
        self.gallery.param.watch(lambda event: self._chosen(event.new["slug"]), "opened")
        state.param.watch(lambda event: self._show(), "study")
        self.view = pn.Column(self.gallery, sizing_mode="stretch_width", margin=0)

    def refresh(self) -> None:
        """Take the page's colours, and load the studies if this has not been done."""
        if self._loading is None:
            self._loading = self._thread.submit(load_shelf, self._store)
            self._watch()
        self.gallery.theme = self._state.theme
        if self._open is not None:
            self._open.dress()

    def mark(self) -> None:
        """Studies know nothing of the selected pair."""

    def answered(self) -> None:
        """Studies ask through jobs of their own."""

    def tick(self) -> None:
        """Take up what the worker found since the last time."""
        if self._shelf is None and self._loading is not None and self._loading.done():
            self._take(self._loading)
        if self._open is not None:
            self._open.tick()

    def close(self) -> None:
        """Stop what runs for this page."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._open is not None:
            self._open.close()

    def _watch(self) -> None:
        if pn.state.curdoc is not None:
            pn.state.on_session_destroyed(lambda context: self.close())

    def _take(self, loading: "Future[Shelf]") -> None:
        try:
            self._shelf = loading.result()
        except Exception as error:
            _log.exception("the studies could not be listed")
            self._shelf = Shelf({}, [], [])
            self.gallery.note = f"The studies could not be listed: {type(error).__name__}: {error}"
        else:
            self.gallery.note = ""
        self._show()

    def _chosen(self, slug: str) -> None:
        self._state.study = slug

    def _show(self) -> None:
        """The study that the state names, or the gallery."""
        if self._shelf is None:
            return
        slug = self._state.study
        if not slug:
            self._show_gallery()
        elif slug not in self._shelf.studies:
            self._state.message = _unknown(slug, self._shelf)
            self._state.study = ""
        else:
            self._show_study(self._shelf.studies[slug])

    def _show_gallery(self) -> None:
        if self._shelf is not None:
            cards = [card | _badged(self._badge(card)) for card in self._shelf.cards]
            self.gallery.param.update(cards=cards, failures=self._shelf.failures)
        self.view.objects = [self.gallery]

    def _badge(self, card: dict[str, Any]) -> str:
        """Only what was opened on this page can have another verdict than at first."""
        shown = self._open
        if self._shelf is None or shown is None or shown.study.slug != card["slug"]:
            return str(card["badge"])
        card["badge"] = shown.desk.badge
        return str(card["badge"])

    def _show_study(self, study: Study[Any, Any]) -> None:
        if self._open is None or self._open.study is not study:
            if self._open is not None:
                self._open.close()
            self._open = StudyView(self._state, study, self._store, lambda: self._chosen(""))
        self._open.dress()
        self.view.objects = [self._open.view]


def load_shelf(store: RunStore) -> Shelf:
    """Load every study and what is known of it on this machine."""
    found, book = open_catalogue(), VerdictBook(store.root)
    cards = [_card(study, found, book) for study in found.studies.values()]
    failures = [
        {"slug": each.entry.slug, "origin": each.entry.origin, "error": each.error}
        for each in found.failures
    ]
    return Shelf(dict(found.studies), cards, failures)


def _card(study: Study[Any, Any], found: Catalogue, book: VerdictBook) -> dict[str, Any]:
    return {
        "slug": study.slug,
        "title": study.title,
        "paper": study.paper.title,
        "authors": authors_of(study),
        "family": study.family,
        "tags": list(study.tags),
        "question": study.question,
        "badge": book.badge(study),
        "origin": found.origins.get(study.slug, "workbench"),
    }


def _badged(badge: str) -> dict[str, str]:
    return {"badge": badge, "sign": SIGNS[badge]}


def _unknown(slug: str, shelf: Shelf) -> str:
    failed = next((each for each in shelf.failures if each["slug"] == slug), None)
    if failed is not None:
        return f"The study {slug[:60]!r} could not be loaded: {failed['error']}"
    return f"There is no study {slug[:60]!r}; choose one of the gallery."
