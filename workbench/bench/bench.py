"""A bench: preference pairs under two models, with settings, a selection, and views of them."""

import itertools
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import traitlets

from workbench.bench.painter import Painter
from workbench.bench.progress import ProgressLine
from workbench.bench.view import BenchError, BenchView
from workbench.data import edits
from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.engine.live import LiveTables, Summary
from workbench.engine.session import Session
from workbench.engine.settings import Settings
from workbench.engine.workspace import Workspace
from workbench.views.markup import number, percent
from workbench.views.words import scoring_words

if TYPE_CHECKING:
    from workbench.bench.attribution import AttributionView
    from workbench.bench.did import DidView
    from workbench.bench.fairness import FairnessView
    from workbench.bench.pairs import PairsView
    from workbench.bench.ranking import RankingView
    from workbench.bench.rewards import RewardsView
    from workbench.bench.train import TrainView

V = TypeVar("V", bound=BenchView)
LOOK = 0.05
_users: Counter[str] = Counter()
"""How many benches of this process have a session open."""


class Bench(traitlets.HasTraits):
    """Preference pairs under a policy and a reference, kept scored.

    Traits change on the thread that changes them; `version` also on a thread of the bench, when
    scores arrive. Observers must not wait for the bench.

    Attributes:
        settings: All hyperparameters; `change` sets some.
        beta: The one of them that is dragged most, for `ipywidgets.link`.
        selected: Id of the selected pair, shared by all views; empty for none.
        group_by: Attribute that colours the figures; empty for none.
        version: Grows whenever pairs or scores change.
        message: Why the last thing asked for in a view was refused; empty otherwise.
    """

    settings = traitlets.Instance(Settings, ())
    beta = traitlets.Float(0.1)
    selected = traitlets.Unicode("")
    group_by = traitlets.Unicode("")
    version = traitlets.Int(0)
    message = traitlets.Unicode("")

    def __init__(self, workspace: Workspace, session: Session, settings: Settings) -> None:
        self.workspace, self.session = workspace, session
        self.tables = LiveTables(session)
        self.lock = threading.RLock()
        self.closed = False
        _users[session.session_id] += 1
        self._counter = itertools.count(1)
        self._seen = session.version
        ids = session.store.pairs().ids()
        super().__init__(settings=settings, beta=settings.beta, selected=ids[0] if ids else "")
        self._painter = Painter(self._paint)
        self._unlisten = session.listen(_asking(weakref.ref(self)))
        self.observe(lambda change: self._painter.ask(), traitlets.All)
        session.score()

    # What is there -------------------------------------------------------------------

    @property
    def session_id(self) -> str:
        """Name of the session, for `open(session=...)` and the served app's address."""
        return self.session.session_id

    @property
    def data(self) -> PreferenceSet:
        """The pairs as they are now."""
        return self.session.store.pairs()

    @property
    def models(self) -> dict[str, str]:
        """Names of policy and reference."""
        return {str(role): name for role, name in self.session.models.items()}

    @property
    def summary(self) -> Summary:
        """The five quantities, one number each."""
        with self.lock:
            return self.tables.summary(self.settings)

    @property
    def selected_row(self) -> int | None:
        """Where the selected pair stands in the set; None where there is none."""
        pairs = self.session.snapshot().pairs
        return pairs.index(self.selected) if self.selected in pairs else None

    def row_of(self, pair_id: str | None = None) -> int:
        """Where a pair, or the selected one, stands in the set.

        Raises:
            DataError: no such pair.
            BenchError: none is selected.
        """
        wanted = self.selected if pair_id is None else pair_id
        if not wanted:
            raise BenchError("No pair is selected; set bench.selected, or name a pair.")
        return self.session.snapshot().pairs.index(wanted)

    def wait(self, timeout: float | None = None) -> None:
        """Return when every pair is scored; shows how far it is where that takes long.

        Args:
            timeout: Seconds after which to give up.

        Raises:
            WorkbenchError: a model cannot be loaded, scoring failed, was cancelled, or took
                longer than `timeout`.
        """
        end = None if timeout is None else time.monotonic() + timeout
        with ProgressLine() as line:
            while (status := self.session.status()).state == "working":
                line.say(scoring_words(status))
                if end is not None and time.monotonic() > end:
                    raise BenchError(
                        f"Scoring is not done after {timeout:g} s ({scoring_words(status)}); wait "
                        "again, or longer."
                    )
                time.sleep(LOOK)
        self._notice()
        if status.state != "idle":
            job = self.session.progress("scores")
            if job is not None and job.error is not None:
                raise job.error
            raise BenchError(f"{scoring_words(status)} Call retry() to go on.")

    # What changes it -----------------------------------------------------------------

    def change(self, **settings: Any) -> None:  # noqa: ANN401 - the settings' own types
        """Change some settings: pure arithmetic on cached scores.

        Raises:
            SettingsError: a value out of range.
            BenchError: no such setting.
        """
        known = Settings.__dataclass_fields__
        unknown = next((name for name in settings if name not in known), None)
        if unknown is not None:
            raise BenchError(f"There is no setting {unknown[:60]!r}; there are {', '.join(known)}.")
        if isinstance(settings.get("attributes"), str | list):
            given = settings["attributes"]
            settings["attributes"] = (given,) if isinstance(given, str) else tuple(given)
        self.settings = self.settings.replaced(**settings)

    def use(self, *, policy: str | None = None, reference: str | None = None) -> None:
        """Put other models in place, by name, and score the pairs by them.

        Raises:
            ModelError: a name that cannot be one; what cannot be loaded is raised by `wait`.
            BenchError: not a name.
        """
        from workbench.bench.opening import check_model

        for name in (policy, reference):
            if name is not None:
                check_model(name)
        self.workspace.use_models(self.session, policy=policy, reference=reference)
        self._notice()

    def edit(self, pair_id: str, **fields: Any) -> None:  # noqa: ANN401 - the fields' own types
        """Change fields of a pair, as one change that can be undone.

        Args:
            pair_id: Which pair.
            fields: For example `chosen="…"`, `alpha=0.8` or `attributes={"age": 40}`.

        Raises:
            DataError: no such pair or field, or a value that does not fit.
        """
        changes: list[edits.Edit] = [
            edits.SetField(pair_id, name, value) for name, value in _flat(fields)
        ]
        self.apply(changes, f"Edit {', '.join(fields)}")

    def swap(self, *pair_ids: str) -> None:
        """Exchange the two answers of pairs, with all evidence.

        Raises:
            DataError: no such pair.
        """
        self.apply(edits.swap(*(self.data[each] for each in pair_ids)), "Swap the answers")

    def flip(self, *pair_ids: str) -> None:
        """Exchange which answer is preferred and leave the raters' shares, as label noise does.

        Raises:
            DataError: no such pair.
        """
        self.apply(edits.flip_label(*(self.data[each] for each in pair_ids)), "Flip the label")

    def add(self, pair: PreferencePair | Mapping[str, Any]) -> str:
        """Add a pair at the end; returns its id, made of its content where none is given.

        Raises:
            DataError: fields that do not fit, or an id that is taken.
        """
        from workbench.bench.opening import pairs_of

        (made,) = pairs_of([pair])
        last = next(reversed(self.data.ids()), None)
        self.apply([edits.AddPair(made, last)], f"Add {made.pair_id}")
        return made.pair_id

    def delete(self, *pair_ids: str) -> None:
        """Delete pairs.

        Raises:
            DataError: no such pair.
        """
        self.apply([edits.DeletePair(each) for each in pair_ids], "Delete")

    def undo(self) -> bool:
        """Take back the last change of the pairs; False if there is none."""
        return self._moved(self.session.undo)

    def redo(self) -> bool:
        """Bring back the change last undone; False if there is none."""
        return self._moved(self.session.redo)

    def apply(self, changes: list[edits.Edit], label: str = "") -> None:
        """Write edits of `workbench.data.edits` as one change.

        Raises:
            DataError: an edit that does not fit; nothing is changed then.
        """
        self.session.apply(changes, label or edits.describe(changes))
        self._notice()

    def retry(self) -> None:
        """Score what is missing, after a failure or a cancelled run."""
        self.session.score()
        self._painter.ask()

    def cancel(self) -> None:
        """Stop scoring; what is scored stays."""
        self.session.cancel()

    def close(self) -> None:
        """Close the views, and the session where no other bench has it; it stays on disk."""
        if self.closed:
            return
        self.closed = True
        self._painter.close()
        self._unlisten()
        for view in self._views.values():
            view.close()
        _users[self.session_id] -= 1
        if not _users[self.session_id]:
            self.workspace.close_session(self.session_id)

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    # Views ---------------------------------------------------------------------------

    @property
    def pairs(self) -> "PairsView":
        """The pairs, to be edited."""
        from workbench.bench.pairs import PairsView

        return self._view(PairsView)

    @property
    def rewards(self) -> "RewardsView":
        """Implicit rewards and margins."""
        from workbench.bench.rewards import RewardsView

        return self._view(RewardsView)

    @property
    def ranking(self) -> "RankingView":
        """Ranking accuracy beside the ideal one, and the flip condition."""
        from workbench.bench.ranking import RankingView

        return self._view(RankingView)

    @property
    def did(self) -> "DidView":
        """Differential information."""
        from workbench.bench.did import DidView

        return self._view(DidView)

    @property
    def fairness(self) -> "FairnessView":
        """Dependence of the outcome on protected attributes."""
        from workbench.bench.fairness import FairnessView

        return self._view(FairnessView)

    @property
    def attribution(self) -> "AttributionView":
        """The tokens that the selected pair's margin comes from."""
        from workbench.bench.attribution import AttributionView

        return self._view(AttributionView)

    @property
    def train(self) -> "TrainView":
        """Live training on the pairs."""
        from workbench.bench.train import TrainView

        return self._view(TrainView)

    def __repr__(self) -> str:
        summary = self.summary
        return (
            f"<Bench {self.data.name!r}: {summary.scored} of {summary.pairs} pairs scored, "
            f"β = {self.settings.beta:g}, mean margin {number(summary.mean_margin)}, "
            f"ranking accuracy {percent(summary.ranking_accuracy)}>"
        )

    # For the views -------------------------------------------------------------------

    def attempt(self, action: Callable[[], object]) -> bool:
        """Do what a reader asked for in a view; a refusal becomes `message`."""
        from workbench.errors import WorkbenchError

        try:
            action()
        except WorkbenchError as error:
            self.message = str(error)
            return False
        self.message = ""
        return True

    def repaint(self) -> None:
        """Have the views look again soon."""
        self._painter.ask()

    def ask(self, kind: str, question: Callable[[], Any], timeout: float | None = None) -> Any:  # noqa: ANN401
        """Wait for the answer to a slow question of `workbench.engine.questions`.

        Raises:
            Exception: what went wrong.
            BenchError: it takes longer than `timeout` seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        with ProgressLine() as line:
            while (found := question()) is None:
                job = self.session.progress(kind)
                if job is not None:
                    now = job.progress
                    line.say(f"{now.note or kind}: {now.done} of {now.total or '?'}")
                    job.wait(LOOK)
                if end is not None and time.monotonic() > end:
                    raise BenchError(f"{kind} is not known after {timeout:g} s; wait longer.")
        if isinstance(found, Exception):
            raise found
        return found

    # Inside --------------------------------------------------------------------------

    @cached_property
    def _views(self) -> dict[type[BenchView], BenchView]:
        return {}

    def _view(self, kind: type[V]) -> V:
        if kind not in self._views:
            self._views[kind] = kind(self)
        found = self._views[kind]
        assert isinstance(found, kind)
        return found

    def _moved(self, move: Callable[[], bool]) -> bool:
        moved = move()
        self._notice()
        return moved

    def _notice(self) -> None:
        """Let `version` follow the session."""
        with self.lock:
            if self.session.version == self._seen:
                return
            self._seen = self.session.version
            version = next(self._counter)
        self.version = version

    @traitlets.validate("beta")
    def _beta_in_range(self, proposal: Any) -> float:  # noqa: ANN401 - traitlets is untyped
        value = float(proposal["value"])
        self.settings.replaced(beta=value)
        return value

    @traitlets.observe("beta")
    def _beta_moved(self, change: Any) -> None:  # noqa: ANN401
        self.settings = self.settings.replaced(beta=change["new"])

    @traitlets.observe("settings")
    def _settings_changed(self, change: Any) -> None:  # noqa: ANN401
        self.beta = change["new"].beta

    @traitlets.validate("selected")
    def _selects_a_pair(self, proposal: Any) -> str:  # noqa: ANN401
        pair_id: str = proposal["value"]
        if pair_id and pair_id not in self.data:
            first = ", ".join(self.data.ids()[:3])
            raise BenchError(
                f"There is no pair {pair_id[:60]!r}; there are {len(self.data)}: {first} …"
            )
        return pair_id

    def _paint(self) -> bool:
        """On the painter's thread: bring the views up to date; whether more is to come."""
        if self.closed:
            return False
        self._notice()
        views = list(self._views.values())
        # Asked before painting, so that what ends meanwhile is looked at once more.
        busy = self.session.status().state == "working" or any(view.busy for view in views)
        for view in views:
            view.paint()
        return busy


def _flat(fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Fields with mappings spread, as a journal names them."""
    found: list[tuple[str, Any]] = []
    for name, value in fields.items():
        if name in ("attributes", "metadata") and isinstance(value, Mapping):
            found += [(f"{name}.{key}", inner) for key, inner in value.items()]
        else:
            found.append((name, value))
    return found


def _asking(bench: "weakref.ref[Bench]") -> Callable[[], None]:
    """What a session calls after a change: it does not keep the bench alive."""

    def ask() -> None:
        found = bench()
        if found is not None:
            found.repaint()

    return ask
