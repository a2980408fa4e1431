"""What a fit is given beside its parameters: seed, device, inputs, progress, a way to stop."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch

from workbench.data.pairs import PreferenceSet
from workbench.errors import Cancelled
from workbench.study.errors import StudyError
from workbench.study.result import Table

Input = Table | PreferenceSet
"""What a person may edit before a fit: a table of plain columns, or preference pairs."""
Progress = Callable[[float, str], None]
"""Takes the share that is done, in [0, 1], and a note."""

ItemT = TypeVar("ItemT")


def _say_nothing(share: float, note: str) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True)
class StudyContext:
    """The surroundings of one fit.

    Attributes:
        seed: Everything drawn at random follows from it; see `generator` and `seeded`.
        device: Where torch computes, for example "cpu" or "cuda".
        inputs: The study's inputs by name, as edited.
        on_progress: Called with the share done and a note.
        cancelled: Whether somebody asked the fit to stop.
    """

    seed: int = 0
    device: str = "cpu"
    inputs: Mapping[str, Input] = field(default_factory=dict)
    on_progress: Progress = _say_nothing
    cancelled: Callable[[], bool] = _never

    def report(self, share: float, note: str = "") -> None:
        """Say how far the fit is, and stop it here if that was asked.

        Raises:
            Cancelled: somebody asked the fit to stop.
        """
        if self.cancelled():
            raise Cancelled("the study was cancelled")
        self.on_progress(min(max(share, 0.0), 1.0), note)

    def track(self, items: Collection[ItemT], note: str = "") -> Iterator[ItemT]:
        """Go through the items, reporting before the first and after each.

        Raises:
            Cancelled: somebody asked the fit to stop.
        """
        self.report(0.0, note)
        for done, item in enumerate(items, start=1):
            yield item
            self.report(done / len(items), note)
        if not items:
            self.report(1.0, note)

    def part(self, start: float, end: float) -> "StudyContext":
        """The same, its progress being the part from start to end (shares) of this one's.

        For fits of several stages: `context.part(0, 0.7).track(...)`, then
        `context.part(0.7, 1).track(...)`.
        """
        width = end - start
        scaled = lambda share, note: self.on_progress(start + width * share, note)  # noqa: E731
        return replace(self, on_progress=scaled)

    def generator(self, purpose: str = "") -> torch.Generator:
        """A generator on the CPU that follows from the seed and the purpose alone.

        Draws for different purposes are independent, and one more draw for one of them does not
        shift the others.
        """
        return torch.Generator().manual_seed(self._seed_for(purpose))

    @contextmanager
    def seeded(self, purpose: str = "") -> Iterator[None]:
        """Seed torch's own generator inside the block, for modules that initialise themselves."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed_for(purpose))
            yield

    def table(self, name: str) -> Table:
        """The input of that name, which is a table.

        Raises:
            StudyError: there is none, or it holds pairs.
        """
        found = self._input(name)
        if isinstance(found, PreferenceSet):
            raise StudyError(f"The input {name!r} holds preference pairs; read it with pairs().")
        return found

    def pairs(self, name: str) -> PreferenceSet:
        """The input of that name, which is a set of preference pairs.

        Raises:
            StudyError: there is none, or it is a table.
        """
        found = self._input(name)
        if not isinstance(found, PreferenceSet):
            raise StudyError(f"The input {name!r} is a table; read it with table().")
        return found

    def _input(self, name: str) -> Input:
        if name not in self.inputs:
            known = ", ".join(self.inputs) or "none"
            raise StudyError(f"There is no input {name!r}; the study declares {known}.")
        return self.inputs[name]

    def _seed_for(self, purpose: str) -> int:
        mixed = hashlib.blake2b(f"{self.seed}:{purpose}".encode(), digest_size=8).digest()
        return int.from_bytes(mixed) >> 1
