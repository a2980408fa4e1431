import pytest
import torch
from hypothesis import settings

from workbench.objectives.logps import PairLogps

# A busy machine must not fail a property by its speed.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def table_pairs() -> PairLogps:
    """The four pairs of the oracle table (core 4.3), with what else an objective may read."""
    rows = [
        [-10, -25, -7, -40],
        [-12, -20, -7, -65],
        [-11, -24, -7, -55],
        [-11, -26, -7, -45],
        [5, 10, 4, 20],
        [6, 9, 4, 30],
        [-8, -9, -30, -4],
        [3, 4, 9, 2],
        [-9, -21, -6, -33],
        [4, 11, 3, 19],
        [0.4, 1.2, -0.3, 1.5],
    ]
    return PairLogps(*torch.tensor(rows, dtype=torch.float64))
