"""Helpers that the tests of workbench.data share."""

from collections.abc import Callable

import pytest

from workbench.data.pairs import PreferencePair, PreferenceSet, build_pair

MakePair = Callable[..., PreferencePair]
MakeSet = Callable[..., PreferenceSet]


@pytest.fixture(scope="session")
def make_pair() -> MakePair:
    def make(pair_id: str = "p0", **fields: object) -> PreferencePair:
        texts = {"prompt": "Why?", "chosen": f"Because {pair_id}.", "rejected": "No idea."}
        return build_pair({"pair_id": pair_id, **texts, **fields})

    return make


@pytest.fixture(scope="session")
def make_set(make_pair: MakePair) -> MakeSet:
    def make(count: int = 5, **fields: object) -> PreferenceSet:
        return PreferenceSet("demo", [make_pair(f"p{n}", **fields) for n in range(count)])

    return make
