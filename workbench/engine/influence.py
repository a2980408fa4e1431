"""Which pairs moved the selected pair's margin: a slow question to the training of a session."""

from typing import TYPE_CHECKING, Literal

from workbench.engine.session import Session
from workbench.training.influence import Influences, Moment, margin_influences, plan_loss

if TYPE_CHECKING:
    from workbench.data.pairs import PreferencePair
    from workbench.engine.jobs import Job
    from workbench.engine.training import Branch, Point

KIND = "influence"
MOMENTS = 8
"""Most kept steps that are looked at."""
Over = Literal["now", "run"]


def influences(session: Session, row: int, over: Over = "now") -> Influences | Exception | None:
    """How a step on each training pair moves the margin of the pair at `row`.

    The exception where it failed; None while the worker is at it, and where nothing is trained.

    Args:
        session: With a branch in training.
        row: Of the pair whose margin is explained.
        over: "now" is the weights in place, per unit of learning rate; "run" the active branch's
            kept steps, at most `MOMENTS` of them evenly, each with its learning rate (TracIn).
    """
    branch = session.training.active
    if branch is None:
        return None
    pair = session.snapshot().pairs.pairs[row]
    points = _points(branch) if over == "run" else []
    key = (session.training.version, over, pair.digest, session.store.revision)
    answer: Influences | Exception | None = session.ask(
        KIND, key, lambda job: _influences(session, pair, points, job)
    )
    return answer


def _points(branch: "Branch") -> list["Point"]:
    """Kept steps, spread evenly over the branch, in order."""
    from workbench.engine.training import Point

    n, last = min(MOMENTS, len(branch.kept)), len(branch.kept) - 1
    places = sorted({round(i * last / max(n - 1, 1)) for i in range(n)})
    return [Point(branch.branch_id, branch.kept[place]) for place in places]


def _influences(
    session: Session, pair: "PreferencePair", points: list["Point"], job: "Job"
) -> Influences:
    desk = session.training
    with desk.borrowed(job) as trainer:
        policy, pairs, now = trainer.policy, trainer.pairs, trainer.snapshot()
        loss = plan_loss(policy, now.plan, pairs, now.reference, now.shift)
        kept = [desk.kept(point) for point in points]
    moments = [Moment(each.weights, each.plan.learning_rate) for each in kept]
    return margin_influences(
        policy,
        pairs,
        pair,
        loss,
        moments or [Moment(now.weights)],
        holding=lambda: desk.borrowed(job),
        on_pair=lambda done, total: job.report(done, total, "comparing gradients"),
        cancelled=job.cancelled,
    )
