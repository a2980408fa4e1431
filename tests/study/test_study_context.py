import pytest
import torch

from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.errors import Cancelled
from workbench.study.context import StudyContext
from workbench.study.errors import StudyError


def recorded() -> tuple[StudyContext, list[tuple[float, str]]]:
    seen: list[tuple[float, str]] = []
    return StudyContext(on_progress=lambda share, note: seen.append((share, note))), seen


def test_track_reports_before_the_first_item_and_after_each() -> None:
    context, seen = recorded()
    assert list(context.track("abcd", "going")) == list("abcd")
    assert seen == [(share, "going") for share in (0, 0.25, 0.5, 0.75, 1)]


def test_track_of_nothing_is_done_at_once() -> None:
    context, seen = recorded()
    assert list(context.track([])) == []
    assert seen[-1][0] == 1


def test_parts_of_parts_make_one_rising_progress() -> None:
    context, seen = recorded()
    list(context.part(0, 0.5).track("ab"))
    list(context.part(0.5, 1).part(0, 0.5).track("ab"))
    list(context.part(0.5, 1).part(0.5, 1).track("ab"))
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_cancelling_stops_between_two_items() -> None:
    done: list[int] = []
    context = StudyContext(cancelled=lambda: len(done) == 2)
    items = context.part(0, 1).track(range(5))
    with pytest.raises(Cancelled):
        any(done.append(item) for item in items)  # type: ignore[func-returns-value]
    assert done == [0, 1]


def test_purposes_draw_independently_and_seeds_differ() -> None:
    def draw(seed: int, purpose: str) -> list[float]:
        return torch.rand(3, generator=StudyContext(seed=seed).generator(purpose)).tolist()

    assert draw(0, "a") == draw(0, "a")
    assert draw(0, "a") != draw(0, "b")
    assert draw(0, "a") != draw(1, "a")


def test_seeded_leaves_the_global_generator_as_it_was() -> None:
    before = torch.get_rng_state()
    with StudyContext().seeded("weights"):
        first = torch.nn.Linear(2, 2).weight.detach()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    with StudyContext().seeded("weights"):
        assert torch.equal(torch.nn.Linear(2, 2).weight.detach(), first)


def test_inputs_are_read_by_name_and_kind() -> None:
    pair = PreferencePair(pair_id="a", prompt="p", chosen="c", rejected="r")
    pairs = PreferenceSet("mine", [pair])
    context = StudyContext(inputs={"pairs": pairs, "votes": {"n": [1, 2]}})
    assert context.pairs("pairs") is pairs
    assert context.table("votes") == {"n": [1, 2]}
    with pytest.raises(StudyError, match="read it with pairs"):
        context.table("pairs")
    with pytest.raises(StudyError, match="read it with table"):
        context.pairs("votes")
    with pytest.raises(StudyError, match="declares pairs, votes"):
        context.table("vote")
