"""What the language model shows: its tables, and its claims, none of which is gated."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from workbench.metrics.information import did_entropy_by_group, entropy_change_by_group
from workbench.studies.differential_information.language_model import STATES, Learnt
from workbench.study.result import Claim

Columns = dict[str, Any]
_AFTER = STATES.index("after")
_EFFICIENCY = "efficiency"


def tables(learnt: Mapping[str, Learnt]) -> dict[str, Columns]:
    """DID by candidate set and by token, displacement, and the course of the training."""
    return {
        "language_candidates": _joined(learnt, _candidates),
        "language_answers": _joined(learnt, _answers),
        "language_training": _joined(learnt, _training),
    }


def claims(learnt: Mapping[str, Learnt]) -> tuple[Claim, ...]:
    """The direction that the paper reports, open-ended less factual, and what was learnt."""
    open_ended, factual = learnt["open-ended"], learnt["factual"]
    paper = "high entropy for open-ended instruction following, low for knowledge-intensive tasks"
    return (
        Claim(
            "language-candidates",
            "report",
            "By candidate set the DID of open-ended pairs has more entropy: difference of "
            "H_S / log |S| after training.",
            _efficiency(open_ended) - _efficiency(factual),
            ">",
            0.0,
            paper=paper,
        ),
        Claim(
            "language-tokens",
            "report",
            "By token it is nearer to uniform: mean log |V| - H(q_t) of factual pairs less that "
            "of open-ended ones.",
            float(factual.from_uniform[_AFTER].mean() - open_ended.from_uniform[_AFTER].mean()),
            ">",
            0.0,
            unit="nats",
            paper=paper,
        ),
        Claim(
            "language-displacement",
            "report",
            "Chosen answers of open-ended pairs lose more log-probability than those of factual "
            "ones: difference of the mean change a token.",
            _displacement(open_ended) - _displacement(factual),
            "<",
            0.0,
            unit="nats",
        ),
        Claim(
            "language-learns",
            "report",
            "Share of the training pairs whose chosen answer has the higher reward, smaller set.",
            min(each.accuracy for each in learnt.values()),
            ">",
            0.9,
        ),
    )


def _efficiency(learnt: Learnt) -> float:
    found: Tensor = _by_prompt(learnt, _AFTER)[_EFFICIENCY]
    return float(found.nanmean())


def _displacement(learnt: Learnt) -> float:
    """Mean change of chosen answers' log-probability a token, nats."""
    change = learnt.log_ratio[_AFTER] / learnt.tokens
    return float(change[learnt.chosen].mean())


def _by_prompt(learnt: Learnt, state: int) -> dict[str, Tensor]:
    log_ratio, reference = learnt.log_ratio[state], learnt.reference[state]
    prompts = int(learnt.prompt.max()) + 1
    did = did_entropy_by_group(log_ratio, learnt.prompt, prompts)
    change = entropy_change_by_group(reference + log_ratio, reference, learnt.prompt, prompts)
    return {
        "prompt": torch.arange(prompts) + 1,
        "size": did.size,
        "entropy": did.entropy,
        _EFFICIENCY: did.efficiency,
        "effective_number": did.effective_number,
        "entropy_change": change,
    }


def _candidates(learnt: Learnt) -> Columns:
    return _by_state([_by_prompt(learnt, state) for state in range(len(STATES))])


def _answers(learnt: Learnt) -> Columns:
    """Means over each answer's tokens, nats a token, and the change of its log-probability."""
    rows = [
        {
            "prompt": learnt.prompt + 1,
            "side": ["chosen" if chosen else "rejected" for chosen in learnt.chosen.tolist()],
            "tokens": learnt.tokens,
            "change": learnt.log_ratio[state],
            "change_per_token": learnt.log_ratio[state] / learnt.tokens,
            "from_uniform": learnt.from_uniform[state],
            "from_uniform_top": learnt.from_uniform_top[state],
            "coverage": learnt.coverage[state],
            "policy_entropy_change": learnt.entropy_change[state],
        }
        for state in range(len(STATES))
    ]
    return _by_state(rows)


def _training(learnt: Learnt) -> Columns:
    return {"step": (torch.arange(len(learnt.loss)) + 1).tolist(), "loss": learnt.loss.tolist()}


def _by_state(rows: list[Columns]) -> Columns:
    """Columns of every state below one another, with a column for the state."""
    lengths = [len(next(iter(each.values()))) for each in rows]
    states = [name for name, length in zip(STATES, lengths, strict=True) for _ in range(length)]
    listed = {name: [cell for each in rows for cell in _list(each[name])] for name in rows[0]}
    return {"policy": states, **listed}


def _joined(learnt: Mapping[str, Learnt], make: Callable[[Learnt], Columns]) -> Columns:
    """One table for all sets, with a column for the set."""
    made = {name: make(each) for name, each in learnt.items()}
    columns = next(iter(made.values()))
    lengths = {name: len(next(iter(each.values()))) for name, each in made.items()}
    return {
        "pairs": [name for name, length in lengths.items() for _ in range(length)],
        **{column: [cell for each in made.values() for cell in each[column]] for column in columns},
    }


def _list(column: Any) -> list[Any]:  # noqa: ANN401 - a tensor or a list
    return list(column.tolist()) if isinstance(column, Tensor) else list(column)
