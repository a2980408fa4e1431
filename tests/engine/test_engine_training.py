"""The training desk: played, paused, rewound, branched, edited, killed and taken up again."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from workbench.data.edits import SetField
from workbench.data.pairs import PreferenceSet
from workbench.engine.jobs import JobRunner
from workbench.engine.pool import ModelPool
from workbench.engine.session import Hub, Session
from workbench.engine.training import Branch, Point, TrainingDesk, TrainingSetup
from workbench.engine.training_setup import split
from workbench.engine.workspace import Workspace
from workbench.errors import TrainingError
from workbench.scoring.models import load_model, parse_model
from workbench.scoring.store import ScoreStore
from workbench.training.history import PairEvaluation, StepRecord
from workbench.training.plan import TrainingPlan
from workbench.training.trainer import Trainer

WAIT = 60.0
PLAN = TrainingPlan(learning_rate=0.02, batch_size=4, evaluate_every=5)
EXACT = TrainingSetup(policy="exact", held_out=0.25, plan=PLAN)
Start = Callable[..., Session]


def until(holds: Callable[[], Any], what: str = "it") -> Any:
    """Wait until something holds, and give what it was."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.005)
    raise AssertionError(f"{what} did not come about in {WAIT} s")


def at_rest(desk: TrainingDesk) -> TrainingDesk:
    """Wait until the desk neither prepares nor plays, and its last slice has ended."""
    until(lambda: desk.status.phase not in ("preparing", "playing"), "rest")
    job = desk.session.hub.runner.newest(f"{desk.session.session_id}/training")
    assert job is None or job.wait(WAIT)
    return desk


def begun(session: Session, setup: TrainingSetup = EXACT) -> TrainingDesk:
    desk = session.training
    desk.start(setup)
    at_rest(desk)
    assert desk.status.phase == "ready", desk.status
    return desk


def played(desk: TrainingDesk, step: int) -> TrainingDesk:
    desk.play(until=step)
    at_rest(desk)
    assert desk.status.step == step, desk.status
    return desk


def active(desk: TrainingDesk) -> Branch:
    found = desk.active
    assert found is not None
    return found


def weights(desk: TrainingDesk) -> dict[str, torch.Tensor]:
    return desk._loaded().policy.state()


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def told(records: tuple[StepRecord, ...]) -> list[str]:
    return [repr(dataclasses.replace(record, seconds=0.0)) for record in records]


@pytest.fixture
def model_hub(tiny_folder: Path) -> Iterator[Hub]:
    """A hub that loads real models."""
    hub = Hub(ScoreStore(), ModelPool(), JobRunner())
    yield hub
    hub.close()


@pytest.fixture
def model_session(model_hub: Hub, tiny_folder: Path, pairs_of: Any) -> Session:
    from workbench.data.store import PairStore

    name = str(tiny_folder)
    return Session("tinysession", PairStore.in_memory(pairs_of(12)), model_hub, name, name)


@pytest.fixture
def model_setup(tiny_folder: Path) -> TrainingSetup:
    return TrainingSetup(model=str(tiny_folder), blocks=1, rank=2, plan=PLAN)


# A run ----------------------------------------------------------------------------------


def test_a_desk_begins_empty_and_asks_for_a_run(start: Start) -> None:
    desk = start().training
    assert desk is desk.session.training
    assert desk.status.phase == "empty"
    assert desk.branches == ()
    assert desk.active is None
    assert not desk.resumable
    for ask in (
        desk.play,
        desk.step,
        lambda: desk.change(beta=1.0),
        lambda: desk.rewind(0),
        desk.branch,
        lambda: desk.use("b1"),
    ):
        with pytest.raises(TrainingError, match="no training run"):
            ask()
    with pytest.raises(TrainingError, match="No run was left"):
        desk.resume()


def test_a_run_is_prepared_played_paused_and_stepped(start: Start) -> None:
    desk = begun(start())
    assert desk.status.train_pairs + desk.status.held_out_pairs == 8
    assert desk.status.held_out_pairs == len(desk.held_out)
    desk.step()
    at_rest(desk)
    assert (desk.status.phase, desk.status.step) == ("paused", 1)
    desk.play()
    until(lambda: desk.status.step > 20, "step 20")
    desk.pause()
    assert desk.status.phase == "paused"
    at_rest(desk)
    step = desk.status.step
    time.sleep(0.1)
    assert desk.status.step == step
    records = active(desk).records
    assert [record.step for record in records] == list(range(1, step + 1))
    assert desk.history("b1") == records
    assert active(desk).kept[0] == 0
    assert active(desk).kept[-1] == step


def test_the_desk_does_what_the_flat_loop_does(start: Start) -> None:
    session = start()
    desk = played(begun(session), 12)
    train, held = split(session.store.pairs(), EXACT.held_out, PLAN.seed)
    from workbench.training.exact import SoftmaxPolicy

    flat = Trainer(SoftmaxPolicy.of_pairs(session.store.pairs().pairs), train, PLAN, held)
    records = tuple(flat.step() for _ in range(12))
    assert equal(weights(desk), flat.policy.state())
    assert told(active(desk).records) == told(records)


def test_version_grows_with_every_step_and_call(start: Start) -> None:
    desk = begun(start())
    seen = [desk.version]
    for act in (desk.step, lambda: desk.change(beta=0.4), lambda: desk.rewind(0), desk.branch):
        act()
        at_rest(desk)
        seen.append(desk.version)
    assert seen == sorted(set(seen))


def test_playing_up_to_a_step_tells_how_far_it_is(start: Start) -> None:
    desk = begun(start())
    played(desk, 3)
    with pytest.raises(TrainingError, match="behind step 3"):
        desk.play(until=3)
    desk._until, desk._from, desk._playing = 10, 3, True
    assert (desk.status.done, desk.status.total) == (0, 7)


def test_a_setup_that_cannot_work_leaves_the_present_run(start: Start) -> None:
    desk = played(begun(start()), 2)
    for fields in ({"policy": "oracle"}, {"held_out": 1.0}, {"blocks": -1}, {"rank": 1.5}):
        with pytest.raises(TrainingError):
            desk.start(dataclasses.replace(EXACT, **fields))
    assert desk.status.step == 2


def test_a_policy_that_cannot_be_made_fails_with_its_reason(start: Start) -> None:
    desk = start().training
    desk.start(TrainingSetup(model="policy"))  # a fake that gives scores only
    at_rest(desk)
    assert desk.status.phase == "failed"
    assert "gives scores only" in desk.status.error
    desk.start(EXACT)
    assert at_rest(desk).status.phase == "ready"


def test_stopping_forgets_the_run(start: Start) -> None:
    desk = played(begun(start()), 2)
    desk.play()
    desk.stop()
    assert desk.status.phase == "empty"
    assert desk.branches == ()


def test_held_out_prompts_are_a_matter_of_their_own_text_and_the_seed(pairs_of: Any) -> None:
    pairs = pairs_of(400)
    train, held = split(pairs, 0.25, 0)
    assert len(train) + len(held) == 400
    assert {p.prompt for p in train}.isdisjoint({p.prompt for p in held})
    assert 0.15 < len(held) / 400 < 0.35
    fewer = PreferenceSet("fewer", pairs.pairs[::3])
    assert split(fewer, 0.25, 0)[1] == [p for p in held if p in fewer.pairs]
    assert split(pairs, 0.25, 1)[1] != held
    assert split(pairs, 0.0, 0)[1] == []


# Live changes ---------------------------------------------------------------------------


def test_a_changed_hyperparameter_is_marked_at_the_next_step(start: Start) -> None:
    desk = played(begun(start()), 2)
    desk.change(beta=0.5, penalty="jdcov", attributes=("age", "gender"))
    assert active(desk).plan.beta == 0.5
    played(desk, 4)
    third, fourth = active(desk).records[-2:]
    assert third.event == "penalty none -> jdcov, attributes none -> age+gender, beta 0.1 -> 0.5"
    assert math.isfinite(third.dependence)
    assert fourth.event == ""


def test_a_change_that_does_not_fit_is_refused_and_nothing_changes(start: Start) -> None:
    desk = played(begun(start()), 1)
    before = active(desk).plan
    for fields in ({"attributes": ("height",)}, {"ld_alpha": 0.5}, {"gamma": 1.0}, {"beta": -1.0}):
        with pytest.raises(TrainingError):
            desk.change(**fields)
    assert active(desk).plan == before
    played(desk, 2)
    assert active(desk).records[-1].event == ""


def test_a_change_in_mid_step_does_not_wait_and_takes_effect_at_the_next(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = begun(start())
    inside, go_on = threading.Event(), threading.Event()
    right = Trainer.step

    def slow(self: Trainer, cancelled: Any = None) -> StepRecord:
        inside.set()
        assert go_on.wait(WAIT)
        return right(self, cancelled)

    monkeypatch.setattr(Trainer, "step", slow)
    desk.play(until=2)
    assert inside.wait(WAIT)
    desk.change(beta=0.9)
    assert active(desk).plan.beta == 0.9
    go_on.set()
    at_rest(desk)
    assert [record.event for record in active(desk).records] == ["", "beta 0.1 -> 0.9"]


def test_an_edit_while_playing_is_scored_in_between_takes_effect_and_is_marked(
    start: Start, pairs_of: Any, models: Any
) -> None:
    session = start(pairs_of(40))
    desk = begun(session)
    scored = models.counts()["policy"]
    desk.play()
    until(lambda: desk.status.step > 5, "step 5")
    trained = next(p for p in session.store.pairs() if p.pair_id not in desk.held_out)
    session.apply([SetField(trained.pair_id, "chosen", "quite another answer")], "edit")
    event = until(lambda: [r for r in active(desk).records if r.event], "the mark")
    until(lambda: models.counts()["policy"] == scored + 1, "the score")
    desk.pause()
    at_rest(desk)
    assert event[0].event == "edited 1 pair"
    assert event[0].step > 5
    used = {pair.pair_id: pair for pair in desk._loaded().pairs}
    assert used[trained.pair_id].chosen == "quite another answer"


def test_deleting_all_pairs_stops_the_run_and_says_why(start: Start) -> None:
    from workbench.data.edits import DeletePair

    session = start()
    desk = played(begun(session), 3)
    session.apply([DeletePair(pair.pair_id) for pair in session.store.pairs()], "all gone")
    desk.step()
    at_rest(desk)
    assert desk.status.phase == "failed"
    assert "None of 0 pairs can be trained on" in desk.status.error
    session.undo()
    desk.step()
    at_rest(desk)
    assert (desk.status.phase, desk.status.step) == ("paused", 4)


def test_divergence_fails_keeps_the_last_good_step_and_says_why(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = played(begun(start()), 4)
    good = weights(desk)
    right = Trainer._losses
    monkeypatch.setattr(Trainer, "_losses", lambda *args: right(*args) * math.nan)
    desk.play()
    at_rest(desk)
    assert (desk.status.phase, desk.status.step) == ("failed", 4)
    assert "diverged at step 5: the loss is nan" in desk.status.error
    assert equal(good, weights(desk))
    monkeypatch.undo()
    played(desk, 5)
    assert desk.status.error == ""


def test_a_run_that_learns_nothing_more_ends_by_itself(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = dataclasses.replace(EXACT, plan=PLAN.replaced(patience=2, evaluate_every=1))
    desk = begun(start(), setup)
    desk.play()
    at_rest(desk)
    assert (desk.status.phase, desk.status.step) == ("done", 3)
    assert "has not fallen for 2 looks" in desk.status.note
    played(desk, 4)


# Time travel ----------------------------------------------------------------------------


def test_rewinding_and_going_on_makes_a_branch_and_loses_nothing(start: Start) -> None:
    desk = played(begun(start()), 10)
    at_ten, first = weights(desk), active(desk).records
    desk.rewind(4)
    assert (desk.status.phase, desk.status.step) == ("paused", 4)
    assert active(desk).branch_id == "b1"
    desk.change(beta=1.0)
    played(desk, 7)
    one, two = desk.branches
    assert one.records == first
    assert (one.step, one.plan.beta) == (10, 0.1)
    assert (two.parent, two.forked_at, two.step, two.plan.beta) == ("b1", 4, 7, 1.0)
    assert [record.step for record in two.records] == [5, 6, 7]
    assert two.kept == (4, 5, 6, 7)
    assert desk.history("b2") == (*first[:4], *two.records)
    desk.use("b1")
    assert equal(at_ten, weights(desk))
    assert active(desk).plan.beta == 0.1


def test_going_on_from_the_last_step_stays_on_the_branch(start: Start) -> None:
    desk = played(begun(start()), 3)
    desk.rewind(3)
    played(desk, 5)
    assert len(desk.branches) == 1


def test_the_same_steps_again_give_the_same_bits_and_another_order_does_not(
    start: Start, pairs_of: Any
) -> None:
    desk = played(begun(start(pairs_of(40))), 12)
    ended, first = weights(desk), active(desk).records
    desk.rewind(5)
    played(desk, 12)
    assert equal(ended, weights(desk))
    assert told(active(desk).records) == told(first[5:])
    desk.rewind(5, "b1")
    desk.change(seed=1)
    played(desk, 12)
    assert not equal(ended, weights(desk))


def test_rewinding_while_playing_pauses_at_the_kept_step(start: Start) -> None:
    desk = begun(start())
    desk.play()
    until(lambda: desk.status.step > 8, "step 8")
    desk.rewind(2)
    assert (desk.status.phase, desk.status.step) == ("paused", 2)
    at_rest(desk)
    assert desk.status.step == 2
    assert desk._loaded().steps == 2


def test_only_kept_steps_and_known_branches_can_be_gone_to(start: Start) -> None:
    desk = played(begun(start()), 3)
    with pytest.raises(TrainingError, match="Step 9 is not kept"):
        desk.rewind(9)
    with pytest.raises(TrainingError, match="no branch 'b7'"):
        desk.rewind(1, "b7")
    assert desk.status.step == 3


def test_a_branch_can_be_made_by_hand_and_named(start: Start) -> None:
    desk = played(begun(start()), 3)
    made = desk.branch("bolder")
    assert active(desk).name == "bolder"
    assert active(desk).forked_at == 3
    desk.rename(made, "boldest")
    assert active(desk).name == "boldest"
    played(desk, 5)
    desk.use("b1")
    assert desk.status.step == 3


# Looking closely --------------------------------------------------------------------------


def test_an_evaluation_of_a_kept_step_leaves_the_weights_in_place(start: Start) -> None:
    session = start()
    desk = played(begun(session), 6)
    now = weights(desk)
    first: PairEvaluation = until(lambda: desk.evaluate("b1", 0), "the evaluation")
    assert isinstance(first, PairEvaluation)
    assert len(first) == 8
    assert float(first.margin.abs().max()) == 0
    found = until(lambda: desk.compare(Point("b1", 3), Point("b1", 6)), "the comparison")
    early, late = found
    trained = torch.tensor([name not in desk.held_out for name in late.pair_ids])
    assert bool((late.margin[trained] > early.margin[trained]).all())
    assert equal(now, weights(desk))
    assert desk.evaluating == (0, 0, "")
    error = until(lambda: desk.evaluate("b1", 99), "the refusal")
    assert isinstance(error, TrainingError)


def test_an_evaluation_sees_edits(start: Start) -> None:
    session = start()
    desk = played(begun(session), 6)
    pair = next(p for p in session.store.pairs() if p.pair_id not in desk.held_out)
    before = until(lambda: desk.evaluate("b1", 6))
    session.apply(
        [
            SetField(pair.pair_id, "chosen", pair.rejected),
            SetField(pair.pair_id, "rejected", pair.chosen),
        ],
        "swap",
    )
    after = until(lambda: desk.evaluate("b1", 6))
    row = before.pair_ids.index(pair.pair_id)
    assert float(after.margin[row]) == pytest.approx(-float(before.margin[row]), abs=1e-12)


def test_a_language_model_is_trained_sampled_and_saved_for_the_picker(
    model_session: Session, model_setup: TrainingSetup, tmp_path: Path
) -> None:
    setup = dataclasses.replace(model_setup, plan=PLAN.replaced(learning_rate=0.05))
    desk = played(begun(model_session, setup), 8)
    assert active(desk).records[-1].loss < active(desk).records[0].loss
    samples = until(lambda: desk.sample("b1", 8, ["question 1"], max_new_tokens=6), "the samples")
    again = until(lambda: desk.sample("b1", 0, ["question 1"], max_new_tokens=6), "the samples")
    assert samples[0].before == again[0].before == again[0].after
    name = desk.save_policy("b1", 8, tmp_path / "adapter")
    loaded = load_model(parse_model(name), dtype="float32", device="cpu")
    assert loaded.adapter is not None
    desk.rewind(0)
    model_session.use_models(policy=name)
    until(lambda: len(model_session.snapshot().scores.rows) == 12, "the scores")
    scores = model_session.snapshot().scores
    late: PairEvaluation = until(lambda: desk.evaluate("b1", 8), "the evaluation")
    assert torch.allclose(scores.policy_chosen, late.policy_chosen, atol=1e-3)
    assert torch.allclose(scores.reference_rejected, late.reference_rejected, atol=1e-3)


def test_what_writes_no_texts_elsewhere_is_not_saved(start: Start, tmp_path: Path) -> None:
    desk = played(begun(start()), 1)
    with pytest.raises(TrainingError, match="only language models are saved"):
        desk.save_policy("b1", 1, tmp_path)


def test_a_tiny_transformer_can_be_trained(start: Start) -> None:
    desk = begun(start(), dataclasses.replace(EXACT, policy="tiny"))
    played(desk, 5)
    assert active(desk).records[-1].loss < active(desk).records[0].loss


# Out of memory, and back ------------------------------------------------------------------


@pytest.fixture
def workspace(tmp_path: Path, models: Any) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path / "sessions", tmp_path / "scores.sqlite", models.load)
    yield workspace
    workspace.close()


def reopened(workspace: Workspace, models: Any) -> Workspace:
    workspace.close()
    return Workspace(workspace.folder, workspace.folder.parent / "scores.sqlite", models.load)


def test_a_run_is_taken_up_where_the_session_was_closed(
    workspace: Workspace, models: Any, pairs_of: Any
) -> None:
    session = workspace.create(pairs_of(), "one", "two")
    desk = played(begun(session), 9)
    desk.rewind(3)
    desk.change(beta=0.3)
    played(desk, 6)
    branches, ended = desk.branches, weights(desk)
    again = reopened(workspace, models)
    other = again.session(session.session_id).training
    assert other.resumable
    other.resume()
    assert [told(b.records) for b in other.branches] == [told(b.records) for b in branches]
    assert [dataclasses.replace(b, records=(), kept=()) for b in other.branches] == [
        dataclasses.replace(b, records=(), kept=()) for b in branches
    ]
    assert other.status.step == 6
    at_rest(other)
    assert other.status.phase == "paused"
    assert equal(weights(other), ended)
    played(other, 7)
    again.close()


def test_a_spoilt_run_is_refused_and_another_can_be_started(
    workspace: Workspace, models: Any, pairs_of: Any
) -> None:
    session = workspace.create(pairs_of(), "one", "two")
    played(begun(session), 2)
    again = reopened(workspace, models)
    folder = again.folder / session.session_id / "training"
    run = json.loads((folder / "run.json").read_text())
    desk = again.session(session.session_id).training
    for spoilt in ({**run, "setup": {"policy": "oracle"}}, {**run, "place": ["b9", 1]}, {}):
        (folder / "run.json").write_text(json.dumps(spoilt))
        with pytest.raises(TrainingError):
            desk.resume()
        assert desk.status.phase == "empty"
    (folder / "run.json").write_text(json.dumps(run))
    next(folder.glob("*.safetensors")).write_bytes(b"spoilt")
    with pytest.raises(TrainingError, match="no training state"):
        desk.resume()
    played(begun(again.session(session.session_id)), 1)
    again.close()


_KILLED = """
import sys, time
from pathlib import Path
import workbench.engine.training as training
from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.engine.workspace import Workspace
from workbench.training.plan import TrainingPlan

training.SAVE_EVERY = 0.0
folder, model = Path(sys.argv[1]), sys.argv[2]
workspace = Workspace(folder / "sessions", folder / "scores.sqlite")
session = workspace.create(PreferenceSet("killed", [
    PreferencePair(pair_id=f"p{i}", prompt=f"question {i}", chosen=f"good answer {i}",
                   rejected=f"bad {i}") for i in range(10)
]), model, model)
plan = TrainingPlan(learning_rate=0.02, batch_size=4, evaluate_every=3)
session.training.start(training.TrainingSetup(model=model, blocks=1, rank=2, plan=plan))
session.training.play()
print(session.session_id, flush=True)
while True:
    time.sleep(0.01)
    print(session.training.status.step, flush=True)
"""


def test_a_killed_run_is_resumed_and_ends_as_if_nothing_had_been(
    tiny_folder: Path, tmp_path: Path
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path), str(tiny_folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert child.stdout is not None
    session_id = child.stdout.readline().strip()
    while int(child.stdout.readline()) < 7:
        pass
    child.send_signal(signal.SIGKILL)
    child.wait()
    workspace = Workspace(tmp_path / "sessions", tmp_path / "scores.sqlite")
    try:
        desk = workspace.session(session_id).training
        assert desk.resumable
        desk.resume()
        stopped = desk.status.step
        assert stopped >= 6
        at_rest(desk)
        played(desk, stopped + 5)
        resumed, records = weights(desk), desk.history("b1")
        fresh = workspace.create(desk.session.store.pairs(), str(tiny_folder), str(tiny_folder))
        assert desk.setup is not None
        straight = played(begun(fresh, desk.setup), stopped + 5)
        assert told(records) == told(straight.history("b1"))
        assert equal(resumed, weights(straight))
    finally:
        workspace.close()
