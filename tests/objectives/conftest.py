import pytest
from hypothesis import settings
from trl_block import oracle_pairs

from workbench.objectives.logps import PairLogps

# A busy machine must not fail a property by its speed.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def table_pairs() -> PairLogps:
    """The four pairs of the oracle table (core 4.3), with what else an objective may read."""
    return oracle_pairs()
