"""A motor portfolio: drawn with the published margins of pg15training, or the user's own file.

`pg15training` (R package CASdatasets, GPL) may not be bundled. What is drawn here has its columns,
its shares of gender and region, its distribution of claim counts and its mean, and the effect
that the study is about: region R claims most, population density and occupation give region and
gender away after both are removed from the inputs, and young men of dense regions claim more than
their region and gender alone would say. All other numbers are ours, rounded, and no row is real.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.metrics.dependence import encode_attribute
from workbench.studies.multitype_fairness.mechanism import NONE, Data, Variant
from workbench.study.context import StudyContext
from workbench.study.errors import StudyError
from workbench.study.result import Cell, Table

if TYPE_CHECKING:
    import pandas as pd

MALE = 0.634
REGIONS = {
    "L": 0.237,
    "M": 0.076,
    "N": 0.052,
    "O": 0.052,
    "P": 0.052,
    "Q": 0.224,
    "R": 0.151,
    "S": 0.052,
    "T": 0.052,
    "U": 0.052,
}
"""Share of each region; those that the paper's code gives as about 5 % have 5.2 % each."""
COUNTS = (0.877256, 0.103558, 0.015177, 0.003059, 0.000620, 0.000170, 0.000090, 0.000070)
"""Share of policies with 0, 1, ... 7 claims."""
MEAN_CLAIMS = 0.14745
NUMERIC = ("Age", "Bonus", "Poldur", "Value", "Density", "Category")
ONE_HOT = ("Type", "Occupation", "Group1")
TARGET, DAYS, GENDER, REGION = "Numtppd", "Exppdays", "Gender", "Group2"
USED = (GENDER, REGION, *NUMERIC, *ONE_HOT, DAYS, TARGET)
"""The columns that are read."""
COLUMNS = (
    "PolNum",
    "CalYear",
    "Gender",
    "Type",
    "Category",
    "Occupation",
    "Age",
    "Group1",
    "Bonus",
    "Poldur",
    "Value",
    "Adind",
    "SubGroup2",
    "Group2",
    "Density",
    "Exppdays",
    "Numtppd",
    "Numtpbi",
    "Indtppd",
    "Indtpbi",
)
"""The columns of pg15training in order, which a file has; those not in `USED` are passed over."""

_DENSITY = dict(zip(REGIONS, (65, 155, 90, 32, 32, 155, 250, 28, 29, 90), strict=True))
_REGION_EFFECT = {"M": 0.3, "R": 0.25}
_OCCUPATIONS = ("Employed", "Housewife", "Retired", "Self-employed", "Unemployed")
_BY_MEN = (0.34, 0.06, 0.14, 0.26, 0.20)
_BY_WOMEN = (0.26, 0.44, 0.12, 0.10, 0.08)
_OCCUPATION_EFFECT = (0.1, -0.1, -0.5, 0.0, 0.3)
_CATEGORIES = ("Small", "Medium", "Large")
_FRAILTY = 0.55
"""Variance of the gamma frailty, which gives the counts their published spread."""


def draw_portfolio(policies: int, context: StudyContext) -> "pd.DataFrame":
    """Draw policies with the columns of pg15training."""
    import pandas as pd

    draw = _Draw(policies, context.generator("portfolio"))
    male = draw.uniform() < MALE
    region = draw.choice(torch.tensor(list(REGIONS.values())).expand(policies, -1))
    columns: dict[str, Tensor] = _covariates(draw, male, region)
    days = torch.where(draw.uniform() < 0.73, 365, 80 + (285 * draw.uniform()).floor())
    risk = _log_risk(columns, male, region).exp() * days / 365
    frailty = draw.gamma(1 / _FRAILTY) * _FRAILTY
    counts = torch.poisson(risk / risk.mean() * MEAN_CLAIMS * frailty, generator=draw.generator)
    names = {
        GENDER: ["Male" if each else "Female" for each in male.tolist()],
        REGION: [list(REGIONS)[each] for each in region.tolist()],
        "Category": [_CATEGORIES[int(each)] for each in columns.pop("Category")],
        "Occupation": [_OCCUPATIONS[int(each)] for each in columns.pop("Occupation")],
        "Type": ["ABCDEF"[int(each)] for each in columns.pop("Type")],
    }
    density = columns.pop("Density").round(decimals=2).tolist()
    whole_numbers = {**columns, DAYS: days, TARGET: counts}
    numbers = {name: values.long().tolist() for name, values in whole_numbers.items()}
    whole = {**names, **numbers, "Density": density}
    return pd.DataFrame(whole)[list(USED)]


def read_portfolio(table: "Table | pd.DataFrame") -> Data:
    """A portfolio's rows as numbers: inputs without gender and region, counts, exposures, cells.

    Numbers are scaled to [0, 1], categories one-hot, Small, Medium and Large 0, 1 and 2; region
    is one-hot and gender 0/1 in the penalty, as in the authors' code.

    Raises:
        StudyError: a column is missing or holds what it may not; says which, and the row.
    """
    import pandas as pd

    frame = pd.DataFrame(dict(table)) if isinstance(table, dict) else pd.DataFrame(table)
    _check_columns(frame)
    days, target = _numbers(frame, DAYS), _numbers(frame, TARGET)
    if bool((days <= 0).any()) or bool((target < 0).any()):
        raise StudyError(f"{DAYS} must be above 0 and {TARGET} 0 or more; mend the rows.")
    gender, region = [frame[name].astype(str).tolist() for name in (GENDER, REGION)]
    cells, names = pd.factorize(frame[GENDER].astype(str) + ", " + frame[REGION].astype(str))
    return Data(
        features=torch.cat(list(_features(frame)), dim=1),
        target=target.float(),
        exposure=(days / 365).float(),
        attributes={
            "gender": encode_attribute(gender, "categorical" if _many(gender) else "binary"),
            "region": encode_attribute(region, "categorical"),
        },
        cells=torch.from_numpy(cells).long(),
        cell_names=tuple(names),
    )


class _Draw:
    """Draws for every policy from one generator."""

    def __init__(self, policies: int, generator: torch.Generator) -> None:
        self.policies, self.generator = policies, generator

    def uniform(self) -> Tensor:
        return torch.rand(self.policies, generator=self.generator, dtype=torch.float64)

    def normal(self) -> Tensor:
        return torch.randn(self.policies, generator=self.generator, dtype=torch.float64)

    def choice(self, shares: Tensor) -> Tensor:
        """A number for each policy from its row of shares."""
        return torch.multinomial(shares.double(), 1, generator=self.generator)[:, 0]

    def gamma(self, shape: float) -> Tensor:
        """Gamma variates of scale 1, by Marsaglia and Tsang (2000), shape + 1 made smaller."""
        d = shape + 2 / 3
        made = torch.ones(self.policies, dtype=torch.float64)
        open_ = torch.ones(self.policies, dtype=torch.bool)
        while bool(open_.any()):
            x = self.normal()
            v = (1 + x / math.sqrt(9 * d)) ** 3
            good = v > 0
            bound = 0.5 * x**2 + d - d * v + d * v.clamp(min=1e-12).log()
            good &= self.uniform().log() < bound
            made[open_ & good] = (d * v)[open_ & good]
            open_ &= ~good
        return made * self.uniform() ** (1 / shape)


def _covariates(draw: _Draw, male: Tensor, region: Tensor) -> dict[str, Tensor]:
    age = (18 + 57 * draw.uniform() ** 1.5).floor()
    shares = torch.where(male[:, None], torch.tensor(_BY_MEN), torch.tensor(_BY_WOMEN))
    young = ((45 - age) / 27).clamp(min=0)
    bonus = -50 + 10 * (4 + 5 * young + (3 + 3 * young) * draw.normal()).round().clamp(0, 20)
    group = (1 + 19 * (0.5 + 0.2 * draw.normal()).clamp(0, 1)).round()
    density = torch.tensor(list(_DENSITY.values()), dtype=torch.float64)[region]
    return {
        "Age": age,
        "Bonus": bonus,
        "Poldur": (16 * draw.uniform() ** 1.7).floor(),
        "Value": (1000 * (12 * (0.7 * draw.normal()).exp())).round().clamp(1000, 50_000),
        "Density": density * (0.22 * draw.normal()).exp(),
        "Category": draw.choice(torch.tensor([0.28, 0.37, 0.35]).expand(draw.policies, -1)),
        "Occupation": draw.choice(shares),
        "Type": ((group / 4 + 1.2 * draw.normal()).round()).clamp(0, 5),
        "Group1": group,
    }


def _log_risk(columns: dict[str, Tensor], male: Tensor, region: Tensor) -> Tensor:
    age, density = columns["Age"], columns["Density"]
    young = torch.exp(-(age - 18) / 12)
    extra = torch.tensor([_REGION_EFFECT.get(name, 0.0) for name in REGIONS])[region]
    dense = (extra > 0).double()
    occupation = torch.tensor(_OCCUPATION_EFFECT)[columns["Occupation"]]
    return (
        0.45 * (density / 100).log()
        + extra
        + 0.15 * male.double()
        + 0.15 * male * dense
        + 0.9 * young
        + 0.006 * columns["Bonus"]
        - 0.015 * columns["Poldur"]
        + 0.04 * columns["Group1"]
        - 0.15 * columns["Category"]
        + occupation
    )


def _check_columns(frame: "pd.DataFrame") -> None:
    missing = [name for name in (GENDER, REGION, DAYS, TARGET) if name not in frame]
    if missing:
        raise StudyError(
            f"The motor table has no column {', '.join(missing)}; name the columns as "
            f"pg15training does: {', '.join(USED)}."
        )
    if not any(name in frame for name in (*NUMERIC, *ONE_HOT)):
        raise StudyError(
            f"The motor table has nothing to predict from; give at least one of "
            f"{', '.join((*NUMERIC, *ONE_HOT))}."
        )
    for name in frame.columns.intersection(list(USED)):
        if bool(frame[name].isna().any()):
            row = int(frame[name].isna().to_numpy().argmax())
            raise StudyError(f"Row {row} of column {name} is empty; leave such rows out first.")


def _features(frame: "pd.DataFrame") -> list[Tensor]:
    import pandas as pd

    found = []
    for name in (each for each in NUMERIC if each in frame):
        values = _numbers(frame, name)
        spread = float(values.max() - values.min()) or 1.0
        found.append(((values - values.min()) / spread).float()[:, None])
    one_hot = [pd.get_dummies(frame[name].astype(str)) for name in ONE_HOT if name in frame]
    return [*found, *(torch.tensor(each.to_numpy("float32")) for each in one_hot)]


def _numbers(frame: "pd.DataFrame", name: str) -> Tensor:
    import pandas as pd

    column: Any = frame[name]
    if name == "Category":
        column = column.replace(dict(zip(_CATEGORIES, range(3), strict=True)))
    values = torch.tensor(pd.to_numeric(column, errors="coerce").to_numpy("float64"))
    if not bool(torch.isfinite(values).all()):
        row = int((~torch.isfinite(values)).int().argmax())
        raise StudyError(f"Row {row} of column {name} is {frame[name].iloc[row]!r}; give a number.")
    return values


def _many(values: list[str]) -> bool:
    return len(set(values)) > 2


def grid_variants(grid: Sequence[float], penalised: tuple[str, ...] = ()) -> list[Variant]:
    """No penalty, then CCdCov and JdCov at every lambda above 0 of the grid."""
    penalties = {"CCdCov": "ccdcov", "JdCov": "jdcov"}
    return [
        Variant("none", NONE, 0.0),
        *(
            Variant(name, penalty, weight, penalised)
            for name, penalty in penalties.items()
            for weight in grid
            if weight > 0
        ),
    ]


def claim_frequencies(data: Data) -> dict[str, list[Cell]]:
    """Claims a year and share of each cell, one row a cell."""
    k = len(data.cell_names)
    claims = torch.bincount(data.cells, data.target, minlength=k).double()
    years = torch.bincount(data.cells, data.exposure, minlength=k).double()
    names = [name.partition(", ") for name in data.cell_names]
    return {
        "gender": [gender for gender, _, _ in names],
        "region": [region for _, _, region in names],
        "policies": list(torch.bincount(data.cells, minlength=k).tolist()),
        "frequency": list((claims / years).tolist()),
    }
