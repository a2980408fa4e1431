"""Live training in a notebook: play, pause, step, rewind and branch."""

import time
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from workbench.bench.view import BenchError, BenchView
from workbench.engine.training import TrainingDesk, TrainingSetup
from workbench.errors import TrainingError
from workbench.training.history import StepRecord, Transitions
from workbench.training.plan import TrainingPlan
from workbench.views.figure import Figure
from workbench.views.listings import Listing
from workbench.views.markup import number
from workbench.views.training_figures import FIRST_CURVES, FURTHER_CURVES, View
from workbench.views.words import event_words, status_words

if TYPE_CHECKING:
    import pandas as pd

    from workbench.bench.bench import Bench

RUNNING = ("preparing", "playing")
FIGURES = FIRST_CURVES | FURTHER_CURVES
_SETUP = {each.name for each in fields(TrainingSetup)} - {"plan"}
_LISTED = ("loss", "reward_margin", "reward_accuracy", "ranking_accuracy", "chosen_shift",
           "rejected_shift", "held_out_loss", "held_out_accuracy")  # fmt: skip
_LAST = 5
_LOOK = 0.05


class TrainView(BenchView):
    """The session's training, whose steps run beside the notebook."""

    title: ClassVar[str] = "Training"
    kinds: ClassVar[tuple[str, ...]] = ("training",)

    def __init__(self, bench: "Bench") -> None:
        super().__init__(bench)
        self._panel: Any = None

    @property
    def desk(self) -> TrainingDesk:
        """What trains: status, branches, evaluation and comparison of kept steps."""
        return self.bench.session.training

    # Transport -------------------------------------------------------------------------

    def start(
        self,
        objective: str = "dpo",
        *,
        steps: int | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        """Begin a new run at step 0 in place of the present one.

        Args:
            objective: A name of `workbench.objectives.catalogue.OBJECTIVES`.
            steps: Steps to take at once; 0 steps (only prepare) if left out.
            settings: Fields of `TrainingSetup` (policy, model, blocks, rank, held_out, ...), of
                `TrainingPlan` (learning_rate, batch_size, penalty, attributes, ...), or the
                objective's hyperparameters (beta, ...).

        Raises:
            TrainingError: something that does not fit.
        """
        own = {name: settings.pop(name) for name in _SETUP & settings.keys()}
        if own.get("policy") == "exact":
            # A table knows nothing of prompts that it is not trained on.
            own.setdefault("held_out", 0.0)
        settings.setdefault("attributes", self.bench.settings.attributes)
        if isinstance(settings["attributes"], list):
            settings["attributes"] = tuple(settings["attributes"])
        plan = TrainingPlan().replaced(objective=objective, **settings)
        self.desk.start(TrainingSetup(**own, plan=plan))
        if steps:
            self.desk.play(until=steps)
        self.bench.repaint()

    def play(self, steps: int | None = None) -> None:
        """Take steps: so many more, or until paused. Begins a run where there is none.

        Raises:
            TrainingError: a number of steps below 1.
        """
        self._begin()
        self.desk.play(until=None if steps is None else self.desk.status.step + steps)
        self.bench.repaint()

    def pause(self) -> None:
        """Stop before the next step."""
        self.desk.pause()
        self.bench.repaint()

    def step(self) -> None:
        """Take one step; returns at once."""
        self._begin()
        self.desk.step()
        self.bench.repaint()

    def rewind(self, step: int, branch: str | None = None) -> None:
        """Put the weights of a kept step in place; a run that plays is paused.

        Raises:
            TrainingError: no run, no such branch, or the step is not kept.
        """
        self.desk.rewind(step, branch)
        self.bench.repaint()

    def branch(self, name: str = "") -> str:
        """Begin a new branch at the weights in place; returns its id.

        Raises:
            TrainingError: no run.
        """
        made = self.desk.branch(name)
        self.bench.repaint()
        return made

    def use(self, branch: str) -> None:
        """Put a branch's newest step in place.

        Raises:
            TrainingError: no such branch.
        """
        self.desk.use(branch)
        self.bench.repaint()

    def change(self, **settings: Any) -> None:  # noqa: ANN401 - fields of a plan
        """Change the plan from the next step on: `change(beta=0.5, learning_rate=1e-4)`.

        Raises:
            TrainingError: no run, or something that does not fit.
        """
        self.desk.change(**settings)
        self.bench.repaint()

    def stop(self) -> None:
        """End the run and forget it, on the disk too."""
        self.desk.stop()
        self.bench.repaint()

    def wait(self, steps: int | None = None, timeout: float | None = None) -> None:
        """Return when step `steps` is taken, or without it when nothing goes on any more.

        Raises:
            TrainingError: training failed.
            BenchError: it is paused before that step, plays without an end, or takes longer than
                `timeout` seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not self._arrived(steps):
            if end is not None and time.monotonic() > end:
                raise BenchError(
                    f"Training is at step {self.desk.status.step} after {timeout:g} s; wait again, "
                    "or longer."
                )
            time.sleep(_LOOK)

    @property
    def status(self) -> Any:  # noqa: ANN401 - a TrainingStatus
        """What the desk is doing."""
        return self.desk.status

    # For one's own analysis ------------------------------------------------------------

    def history(self, branch: str | None = None) -> "pd.DataFrame":
        """One row a step of a branch (the active one), its ancestors' steps first.

        Columns are the fields of `workbench.training.history.StepRecord`; the shares of
        transitions are columns of their own.

        Raises:
            TrainingError: no such branch.
        """
        import pandas as pd

        active = self.desk.active
        name = branch or (active.branch_id if active else None)
        records = self.desk.history(name) if name else ()
        names = [each.name for each in fields(StepRecord) if each.name != "transitions"]
        columns = [*names, *Transitions._fields]
        rows = [[*(asdict(each)[name] for name in names), *each.transitions] for each in records]
        return pd.DataFrame(rows, columns=columns).set_index("step")

    def frame(self) -> "pd.DataFrame":
        """The history of the active branch."""
        return self.history()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every measure of the active branch's history, shape (steps,), NaN where not measured."""
        frame = self.history().reset_index().drop(columns="event")
        return {
            str(name): torch.tensor(values.to_numpy(dtype="float64"))
            for name, values in frame.items()
        }

    def drawings(self) -> dict[str, Figure]:
        """All curves over the steps, every branch in each."""
        view = self.view()
        return {name: draw(view) for name, draw in FIGURES.items()}

    def listing(self) -> str:
        """What the desk is doing, and the last steps."""
        words = [status_words(self.desk.status, self.desk.active),
                 event_words(self.view(), self.desk.active)]  # fmt: skip
        active = self.desk.active
        records = self.desk.history(active.branch_id)[-_LAST:] if active else ()
        rows = [[str(r.step), *(number(getattr(r, name), 3) for name in _LISTED)] for r in records]
        head = ["step", *(name.replace("_", " ") for name in _LISTED)]
        return Listing(head, rows, [each for each in words if each]).html

    # The live view

    def _body(self) -> list[Any]:
        from workbench.bench.train_panel import TrainPanel

        panel = self._panel = TrainPanel(self)
        parts: list[Any] = panel.parts
        return parts

    def _refresh(self) -> None:
        self._panel.refresh()

    def _now(self) -> object:
        return super()._now(), self.desk.version, self.desk.status.phase, self.desk.status.done

    @property
    def busy(self) -> bool:
        """Whether steps are being taken or prepared."""
        return self._built and self.desk.status.phase in RUNNING

    def view(self) -> View:
        """The branches, as the figures take them."""
        active = self.desk.active
        step = self.desk.status.step if active else None
        return View(self.desk.branches, active.branch_id if active else "", step)

    def _begin(self) -> None:
        """A run, where there is none yet: the stored one, or one with the setup as it stands."""
        if self.desk.active is None and self.desk.resumable:
            self.desk.resume()
        elif self.desk.setup is None:
            self.start(**(self._panel.setup() if self._panel else {}))

    def _arrived(self, steps: int | None) -> bool:
        status = self.desk.status
        if status.phase == "failed":
            raise TrainingError(status.error)
        if steps is None:
            if status.phase == "playing" and not status.total:
                raise BenchError("Training goes on until it is paused; name a step: wait(20).")
            return status.phase not in RUNNING
        if status.phase == "empty" or (status.phase in ("ready", "paused") and status.step < steps):
            raise BenchError(
                f"Training stands at step {status.step} and takes none; call play() first."
            )
        return status.step >= steps or status.phase == "done"
