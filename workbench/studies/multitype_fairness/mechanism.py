"""Networks trained with distance covariance as a penalty, and what is audited of them.

Many networks, one a variant, train side by side: from the same first weights, on the same
batches, so that two of them differ by nothing but their penalty. A batch's loss is the mean task
loss + lambda * dependence of outcome and attributes, a U-statistic that is never cut at 0. The
task is Poisson with an exposure, or binary. Optimiser (Adam for the paper's AdaHessian), widths
and epochs are ours.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.metrics import prediction
from workbench.metrics.dependence import (
    u_concatenated_distance_covariance_sq,
    u_joint_distance_covariance_sq,
)
from workbench.metrics.divergence import (
    PAPER_BANDWIDTH,
    generalised_jensen_shannon,
    unfairness,
)
from workbench.objectives.fairness_penalty import (
    AttributeKernel,
    Dependence,
    attribute_kernel,
    fairness_penalty,
)
from workbench.study.context import StudyContext
from workbench.study.result import Cell

NONE = "none"
LEAST_BATCH = 128
"""Smaller batches hold too few rows of a cell, and their U-statistics are too noisy."""
_POINTS = 150
"""Of the densities' grid; the authors' 1,000 give the same to three digits."""
_LOWEST_LOG_RATE, _HIGHEST_LOG_RATE = -12.0, 4.0


@dataclass(frozen=True)
class Data:
    """Rows to learn from or to audit.

    Attributes:
        features: Inputs without the protected attributes, shape (n, d), float32.
        target: Claim counts, or 0/1, shape (n,), float32.
        exposure: Years at risk, shape (n,); ones for a binary target.
        attributes: Protected attributes by name, encoded, each (n,) or (n, k), float64.
        cells: Number of each row's intersection cell, shape (n,).
        cell_names: Name of each cell.
    """

    features: Tensor
    target: Tensor
    exposure: Tensor
    attributes: dict[str, Tensor]
    cells: Tensor
    cell_names: tuple[str, ...]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.target)

    def taken(self, rows: Int[Tensor, " m"]) -> "Data":
        """Only some of the rows."""
        return Data(
            self.features[rows],
            self.target[rows],
            self.exposure[rows],
            {name: values[rows] for name, values in self.attributes.items()},
            self.cells[rows],
            self.cell_names,
        )

    def seeing_attributes(self) -> "Data":
        """The same, with the protected attributes among the inputs."""
        seen = [values.reshape(len(self), -1).float() for values in self.attributes.values()]
        return replace(self, features=torch.cat([self.features, *seen], dim=1))

    def split(self, first: int, generator: torch.Generator) -> tuple["Data", "Data"]:
        """About `first` rows, and the others, each with every cell in its proportion, shuffled."""
        order = by_cell(self.cells, generator)
        place = torch.arange(len(order))
        early = (place * first) // len(order) != ((place + 1) * first) // len(order)
        parts = [order[early], order[~early]]
        rows = [part[torch.randperm(len(part), generator=generator)] for part in parts]
        return self.taken(rows[0]), self.taken(rows[1])


@dataclass(frozen=True)
class Audited:
    """What became of a data set's networks on rows that none was trained on.

    Attributes:
        source: Where the rows come from.
        note: What one should know of them; "" for nothing.
        trained_on: Rows that the networks were trained on.
        table: One row a network; see `audits`.
        outcome: Each network's outcome, shape (networks, n), float32.
        cells: Intersection cell of each row, shape (n,).
        cell_names: Name of each cell.
        floor: Jensen-Shannon divergence of the first network once the cells are dealt at random.
    """

    source: str
    note: str
    trained_on: int
    table: dict[str, list[Cell]]
    outcome: Tensor
    cells: Tensor
    cell_names: tuple[str, ...]
    floor: float


@dataclass(frozen=True)
class Variant:
    """One network: what its penalty measures, against which attributes, and how strongly.

    Attributes:
        name: For a person, for example "CCdCov".
        penalty: A `Dependence`, or "none".
        weight: lambda.
        attributes: Names of the attributes that are penalised; empty for all.
    """

    name: str
    penalty: str
    weight: float
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """How networks are trained.

    Attributes:
        widths: Width of each hidden layer; empty for a generalised linear model.
        epochs: Passes over the rows.
        batch: Rows of a batch at least, 128 or more.
        learning_rate: Adam's first step size; a cosine takes it to 0.
        c: JdCov's weight of lower orders of interaction.
        decay: Weight decay (AdamW).
    """

    widths: tuple[int, ...]
    epochs: int
    batch: int
    learning_rate: float
    c: float = 1.0
    decay: float = 1e-4


@dataclass(frozen=True)
class Task:
    """What the networks are to learn.

    Attributes:
        loss: From what k networks put out and their rows: each row's loss and the outcome, (k, m).
        scores: One network's accuracy on each row, by name; lower is better but for accuracy.
        start: What a network that knows only the mean would put out.
    """

    loss: Callable[[Tensor, Data], tuple[Tensor, Tensor]]
    scores: Callable[[Tensor, Data], dict[str, Tensor]]
    start: Callable[[Data], float]


def _poisson_loss(logit: Float[Tensor, "k m"], data: Data) -> tuple[Tensor, Tensor]:
    """Mean less y log mean (log y! left out) of mu = exposure * exp(f), and mu."""
    logs = logit.clamp(_LOWEST_LOG_RATE, _HIGHEST_LOG_RATE) + data.exposure.log()
    return logs.exp() - data.target * logs, logs.exp()


def _poisson_scores(mu: Float[Tensor, " n"], data: Data) -> dict[str, Tensor]:
    count = data.target.double()
    return {
        "rps": prediction.poisson_ranked_probability_score(mu, count),
        "deviance": prediction.poisson_deviance(mu, count),
        "log_loss": mu - torch.special.xlogy(count, mu) + torch.lgamma(count + 1),
    }


def _binary_loss(logit: Float[Tensor, "k m"], data: Data) -> tuple[Tensor, Tensor]:
    target = data.target.expand_as(logit)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
    return loss, logit.sigmoid()


def _binary_scores(probability: Float[Tensor, " n"], data: Data) -> dict[str, Tensor]:
    safe, target = probability.clamp(1e-12, 1 - 1e-12), data.target.double()
    return {
        "rps": prediction.brier_score(probability, target),
        "log_loss": torch.nn.functional.binary_cross_entropy(safe, target, reduction="none"),
        "accuracy": prediction.binary_accuracy(probability, target),
    }


POISSON = Task(
    _poisson_loss,
    _poisson_scores,
    lambda data: float((data.target.sum() / data.exposure.sum()).log()),
)
"""Claim counts; what is penalised is the expected count, exposure included, as the authors do."""
BINARY = Task(_binary_loss, _binary_scores, lambda data: float(torch.logit(data.target.mean())))
"""Log-loss of a 0/1 target; what is penalised is the probability."""


class Networks:
    """Networks of one shape side by side, with equal first weights.

    Args:
        count: How many.
        inputs: Number of features.
        widths: Width of each hidden layer (ReLU between them).
        generator: Draws the first weights.
    """

    def __init__(
        self, count: int, inputs: int, widths: Sequence[int], generator: torch.Generator
    ) -> None:
        sizes = [inputs, *widths, 1]
        self.weights: list[Tensor] = []
        self.biases: list[Tensor] = []
        for into, out in itertools.pairwise(sizes):
            # He et al. (2015), as the authors; the last layer starts small, near the mean rate.
            scale = math.sqrt(2 / into) if out > 1 else 0.1 / math.sqrt(into)
            weight = scale * torch.randn(1, into, out, generator=generator)
            self.weights.append(weight.repeat(count, 1, 1).requires_grad_())
            self.biases.append(torch.zeros(count, 1, out, requires_grad=True))

    def parameters(self) -> list[Tensor]:
        """Everything that is trained."""
        return [*self.weights, *self.biases]

    def start_at(self, level: float) -> None:
        """Let every network put out about `level` before it is trained."""
        with torch.no_grad():
            self.biases[-1].fill_(level)

    def __call__(self, features: Float[Tensor, "m d"]) -> Float[Tensor, "k m"]:
        """What each network puts out for each row, before the link."""
        hidden = features.expand(len(self.weights[0]), *features.shape)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if layer < len(self.weights) - 1:
                hidden = hidden.relu()
        return hidden[..., 0]


def train(
    data: Data,
    variants: Sequence[Variant],
    task: Task,
    recipe: Recipe,
    context: StudyContext,
) -> Networks:
    """Train one network a variant on the same stratified batches.

    Raises:
        ValueError: the batch is smaller than 128 rows.
        Cancelled: somebody asked to stop.
    """
    if recipe.batch < LEAST_BATCH:
        raise ValueError(f"The batch has {recipe.batch} rows; take at least {LEAST_BATCH}.")
    shape = data.features.shape[1], recipe.widths, context.generator("weights")
    networks = Networks(len(variants), *shape)
    networks.start_at(task.start(data))
    per_epoch = max(len(data) // recipe.batch, 1)
    optimiser = torch.optim.AdamW(
        networks.parameters(), lr=recipe.learning_rate, weight_decay=recipe.decay
    )
    steps = recipe.epochs * per_epoch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    shuffle, batches = context.generator("batches"), list[Tensor]()
    for _ in context.track(range(steps), f"{len(variants)} networks"):
        batches = batches or stratified_batches(data.cells, per_epoch, shuffle)
        batch = data.taken(batches.pop())
        optimiser.zero_grad()
        # The sum's gradient is each network's own, and Adam treats each weight by itself.
        _losses(networks, batch, variants, task, recipe.c).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return networks


def by_cell(cells: Int[Tensor, " n"], generator: torch.Generator) -> Int[Tensor, " n"]:
    """Rows cell by cell, in random order within each."""
    order = torch.randperm(len(cells), generator=generator)
    return order[cells[order].argsort(stable=True)]


def stratified_batches(
    cells: Int[Tensor, " n"], count: int, generator: torch.Generator
) -> list[Tensor]:
    """All rows dealt to `count` batches, so that each holds every cell in its proportion."""
    order = by_cell(cells, generator)
    return [order[place::count] for place in range(count)]


def outcomes(networks: Networks, data: Data, task: Task) -> Float[Tensor, "k n"]:
    """Every network's outcome for every row, float64."""
    with torch.no_grad():
        return task.loss(networks(data.features), data)[1].double()


def audit(outcome: Float[Tensor, " n"], data: Data, task: Task, rows: int) -> dict[str, float]:
    """Accuracy and dependence of one network's outcomes.

    `js` (bits, the paper's bandwidth), `js_adaptive` (Silverman's) and `uf` are between the
    intersection cells. CCdCov and JdCov are U-statistics over the first `rows` rows: give them in
    random order.
    """
    some = outcome[:rows]
    attributes = [values[:rows] for values in data.attributes.values()]
    cells = numbered(data.cells)
    scores = {name: float(row.mean()) for name, row in task.scores(outcome, data).items()}
    return scores | {
        "js": paper_jensen_shannon(outcome, cells),
        "js_adaptive": float(generalised_jensen_shannon(outcome, cells, points=_POINTS)),
        "uf": float(unfairness(outcome, cells)),
        "ccdcov": float(u_concatenated_distance_covariance_sq(some, attributes)),
        "jdcov": float(u_joint_distance_covariance_sq([some, *attributes])),
    }


def audits(
    outcome: Float[Tensor, "k n"],
    variants: Sequence[Variant],
    data: Data,
    task: Task,
    rows: int,
) -> dict[str, list[Cell]]:
    """One row a variant, as columns: what it is, and its `audit`."""
    found = [audit(each, data, task, rows) for each in outcome]
    columns: dict[str, list[Cell]] = {
        "regulariser": [variant.name for variant in variants],
        "lambda": [variant.weight for variant in variants],
    }
    return columns | {name: [each[name] for each in found] for name in found[0]}


def paper_jensen_shannon(outcome: Float[Tensor, " n"], cells: Int[Tensor, " n"]) -> float:
    """Jensen-Shannon divergence as the authors' code has it: bandwidth 0.15, from min to max."""
    found = generalised_jensen_shannon(
        outcome, cells, bandwidth=PAPER_BANDWIDTH, padding=0.0, points=_POINTS
    )
    return float(found)


def numbered(cells: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """The cells that occur, numbered without gaps."""
    found: Tensor = torch.unique(cells, return_inverse=True)[1]
    return found


def _losses(
    networks: Networks, batch: Data, variants: Sequence[Variant], task: Task, c: float
) -> Float[Tensor, " k"]:
    """Each network's mean loss + lambda * dependence on a batch."""
    loss, outcome = task.loss(networks(batch.features), batch)
    kernels: dict[tuple[str, tuple[str, ...]], AttributeKernel] = {}
    penalties = [torch.zeros(()) for _ in variants]
    for place, variant in enumerate(variants):
        if variant.penalty == NONE or variant.weight == 0:
            continue
        kind = variant.penalty, variant.attributes
        if kind not in kernels:
            kernels[kind] = kernel_of(batch.attributes, variant, c)
        penalties[place] = fairness_penalty(outcome[place], kernels[kind], variant.weight)
    return loss.mean(dim=1) + torch.stack(penalties)


def kernel_of(attributes: Mapping[str, Tensor], variant: Variant, c: float) -> AttributeKernel:
    """What a batch's attributes contribute to a variant's penalty; see `attribute_kernel`."""
    chosen = [attributes[name] for name in variant.attributes or attributes]
    return attribute_kernel(chosen, cast(Dependence, variant.penalty), c)


@dataclass(frozen=True)
class Experiment:
    """Networks to train on some rows and to audit on others.

    Attributes:
        variants: The networks, the one without a penalty first.
        task: What they learn.
        recipe: How.
        dependence_rows: Rows of the audit that the quadratic statistics take.
        finish: Applied to the outcomes before they are audited; sabotaged variants use it.
    """

    variants: Sequence[Variant]
    task: Task
    recipe: Recipe
    dependence_rows: int
    finish: Callable[[Tensor, torch.Generator], Tensor] = lambda outcome, generator: outcome

    def run(
        self, train_on: Data, audit_on: Data, source: str, note: str, context: StudyContext
    ) -> Audited:
        """Train, and audit on the other rows."""
        networks = train(train_on, self.variants, self.task, self.recipe, context)
        found = outcomes(networks, audit_on, self.task)
        return self._audited(found, audit_on, len(train_on), (source, note), context)

    def cross_fit(
        self, data: Data, folds: int, source: str, note: str, context: StudyContext
    ) -> Audited:
        """Audit on all rows, each by networks that were trained on the other folds."""
        order = by_cell(data.cells, context.generator("folds"))
        outcome = torch.empty(len(self.variants), len(data), dtype=torch.float64)
        for fold in range(folds):
            held = order[fold::folds]
            rest = order[torch.arange(len(order)) % folds != fold]
            stage = context.part(fold / folds, (fold + 1) / folds)
            networks = train(data.taken(rest), self.variants, self.task, self.recipe, stage)
            outcome[:, held] = outcomes(networks, data.taken(held), self.task)
        mixed = torch.randperm(len(data), generator=context.generator("order"))
        found = outcome[:, mixed], data.taken(mixed), len(data) - len(data) // folds
        return self._audited(*found, (source, note), context)

    def _audited(
        self,
        outcome: Tensor,
        data: Data,
        trained_on: int,
        about: tuple[str, str],
        context: StudyContext,
    ) -> Audited:
        outcome = self.finish(outcome, context.generator("finish"))
        dealt = torch.randperm(len(data), generator=context.generator("floor"))
        return Audited(
            *about,
            trained_on,
            audits(outcome, self.variants, data, self.task, self.dependence_rows),
            outcome.float(),
            data.cells,
            data.cell_names,
            paper_jensen_shannon(outcome[0], numbered(data.cells[dealt])),
        )
