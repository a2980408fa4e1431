"""What a session and its training are doing, in sentences."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.views.markup import number

if TYPE_CHECKING:
    from workbench.engine.session import ScoringStatus
    from workbench.engine.training import Branch, TrainingStatus
    from workbench.views.training_figures import View

_EVENTS = 4
_REASONS = 2
EMPTY = "Choose an objective and a policy below, then press Play."
DID_CAUTION = (
    "H(q) over a prompt's candidate answers says how spread the update is, not whether the policy "
    "became more certain: policy = reference gives the largest H of all. Read it beside the change "
    "of policy entropy, and compare only prompts with equally many candidates |S|. The theory "
    "takes the reference to be the distribution that chosen answers come from."
)
_FLAGS = {
    "empty": "with an empty answer, left out",
    "identical": "with two identical answers, whose margin is always 0",
    "truncated": "longer than the model reads, scored as far as it does",
    "not_finite": "without a finite score, left out",
}


def scoring_words(status: "ScoringStatus") -> str:
    """What the scoring job is doing, in a sentence; empty where all is scored."""
    if status.state == "failed":
        return f"Scoring failed: {status.error}"
    if status.state == "cancelled":
        return f"Scoring was stopped; {status.total - status.done} answers are not scored."
    if status.state != "working":
        return ""
    left = f", about {status.eta_seconds:.0f} s left" if status.eta_seconds else ""
    count = f": {status.done} of {status.total}{left}" if status.total else ""
    return f"{status.note or 'starting'}{count}"


def flag_words(flags: Mapping[str, Sequence[str]]) -> str:
    """The pairs that a summary should not take at face value; empty where there are none."""
    words = "; ".join(
        f"{len(ids)} {_FLAGS[flag]} ({_first_few(ids)})" for flag, ids in flags.items() if ids
    )
    return f"⚠ Pairs: {words}." if words else ""


def token_did_words(answer: object, selected: bool) -> str:
    """What the figure of DID by token shows, why not, or how long it takes."""
    if isinstance(answer, Exception):
        return f"Not to be had: {answer}"
    if answer is None:
        return "Computing…" if selected else "Select a pair to see its tokens."
    found: Any = answer
    size = f"V = {found.vocabulary:,}, top {found.top_k} of both, coverage {found.coverage:.3f}"
    return f"Next-token DID of the selected pair. {size}; zero where the models agree."


def kept_step(branch: "Branch", step: int) -> int:
    """The newest kept step of a branch that is not later than `step`."""
    return max((each for each in branch.kept if each <= step), default=branch.forked_at)


def status_words(status: "TrainingStatus", active: "Branch | None") -> str:
    """What the desk is doing, in a sentence."""
    left_out = _left_out_words(status)
    pairs = f"{status.train_pairs} pairs to train on, {status.held_out_pairs} held out{left_out}"
    if status.phase == "empty":
        return EMPTY
    if status.phase == "preparing":
        count = f", {status.done} of {status.total}" if status.total else ""
        return f"{status.note or 'preparing'}{count} …"
    if status.phase == "failed":
        return f"Stopped at step {status.step}: {status.error}"
    if status.phase == "ready":
        return f"Ready: {pairs}."
    pace = _pace(active)
    word = {"playing": "Training", "paused": "Paused", "done": "Done"}[status.phase]
    note = f": {status.note}" if status.note else ""
    return f"{word}{note} · step {status.step}{pace} · {pairs}."


def event_words(view: "View", active: "Branch | None") -> str:
    """The last edits and changes on the way to where the active branch is."""
    records = view.history(active) if active else []
    events = [f"step {record.step}: {record.event}" for record in records if record.event]
    more = "… · " if len(events) > _EVENTS else ""
    return f"Changed at {more}{' · '.join(events[-_EVENTS:])}" if events else ""


def _left_out_words(status: "TrainingStatus") -> str:
    if not status.left_out:
        return ""
    reasons = "; ".join(list(dict.fromkeys(status.left_out.values()))[:_REASONS])
    return f", {len(status.left_out)} left out ({reasons})"


def _pace(active: "Branch | None") -> str:
    last = [record.seconds for record in (active.records if active else ())[-10:]]
    return f" · {number(sum(last) / len(last), digits=2)} s a step" if last else ""


def _first_few(ids: Sequence[str]) -> str:
    return ", ".join(pair_id[:24] for pair_id in ids[:3]) + (" …" if len(ids) > 3 else "")
