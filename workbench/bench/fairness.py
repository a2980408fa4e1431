"""Dependence of the outcome on protected attributes, in a notebook."""

from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets as widgets
import torch

from workbench.bench.parts import (
    Plot,
    beta_slider,
    choice,
    dropdown,
    offer,
    side_by_side,
    switch,
    tools,
)
from workbench.bench.tables import indexed
from workbench.bench.view import BenchView, asking, put
from workbench.engine.fairness import FairnessTable
from workbench.engine.questions import permutation
from workbench.metrics.dependence import PermutationTest
from workbench.views.choices import OUTCOMES
from workbench.views.fairness_figures import clearest, outcome_by_group, outcome_densities
from workbench.views.figure import Figure
from workbench.views.listings import Listing, dependence_listing, joint_rows, permutation_row

if TYPE_CHECKING:
    import pandas as pd

    from workbench.bench.bench import Bench

PERMUTATIONS = 999
_KIND = "permutation"


class FairnessView(BenchView):
    """Dependence on each chosen attribute and on all, densities and means by group."""

    title: ClassVar[str] = "Fairness"
    kinds: ClassVar[tuple[str, ...]] = (_KIND, "joint")

    def __init__(self, bench: "Bench") -> None:
        super().__init__(bench)
        self._shown = ""
        self._tested: object = None

    def frame(self) -> "pd.DataFrame":
        """One row a usable pair, indexed by its id: the outcome (β·nats) and the attributes."""
        with self.bench.lock:
            table, pairs = self._table(), self.bench.tables.snapshot.pairs
            frame = indexed(pairs, table.rows, {"outcome": table.outcome * self.bench.beta})
        for column in table.columns:
            frame[column.name] = list(column.values)
        return frame

    def dependences(self) -> "pd.DataFrame":
        """One row a chosen attribute: its kind, n, and the measures of dependence.

        Distance covariances are at the bench's beta (core 3), Jensen-Shannon in bits.
        """
        import pandas as pd

        with self.bench.lock:
            table, beta = self._table(), self.bench.settings.beta
            rows = [
                {
                    "attribute": each.name,
                    "kind": each.kind,
                    "n": each.n,
                    "distance_correlation": each.distance_correlation,
                    "distance_covariance_sq": beta * each.distance_covariance_sq,
                    "u_distance_covariance_sq": beta * each.u_distance_covariance_sq,
                    "jensen_shannon": each.jensen_shannon,
                }
                for each in table.dependences
            ]
        return pd.DataFrame(rows).set_index("attribute") if rows else pd.DataFrame()

    def permutation_test(self, permutations: int = PERMUTATIONS, seed: int = 0) -> PermutationTest:
        """Test by permutation whether the outcome is independent of all attributes jointly.

        Raises:
            ValueError: no attribute is chosen, or fewer than four pairs have all of them.
        """
        with self.bench.lock:
            table, settings = self._table(), self.bench.settings
        session = self.bench.session
        found: PermutationTest = self.bench.ask(
            _KIND, lambda: permutation(session, table, settings, permutations, seed)
        )
        return found

    def tensors(self) -> dict[str, torch.Tensor]:
        """`outcome` at the bench's beta and `rows`, shape (used,); attributes as numbers.

        `attribute.NAME` is encoded as for the distance covariance, for the pairs that know it.
        """
        with self.bench.lock:
            table, settings = self._table(), self.bench.settings
            found = {"rows": table.rows.clone(), "outcome": table.outcome * settings.beta}
            for each in table.dependences:
                if not each.note:
                    encoded = each.column.encoded(settings.equalise)
                    found[f"attribute.{each.name}"] = encoded.clone()
        return found

    def drawings(self) -> dict[str, Figure]:
        """Densities and means of the attribute that is shown."""
        table, settings, shown = self._table(), self.bench.settings, self._attribute()
        return {
            "Outcome density by group": outcome_densities(table, shown, settings),
            "Outcome by group": outcome_by_group(table, shown, settings),
        }

    def listing(self) -> str:
        """Dependence on each attribute, and on all."""
        beta = self.bench.settings.beta
        return dependence_listing(self._table(), beta).html + self._joint()

    # The live view

    def _body(self) -> list[Any]:
        bench = self.bench
        self._chosen = widgets.HBox(layout={"flex_flow": "row wrap"})
        self._boxes: dict[str, Any] = {}
        self._show = dropdown("show groups of", [], None)
        self._show.observe(lambda change: self._look_at(change["new"]), "value")
        self._test = widgets.Button(description=f"Permutation test ({PERMUTATIONS})",
                                    layout={"width": "auto"})  # fmt: skip
        self._test.on_click(asking(self._ask))
        self._single, self._jointly = widgets.HTML(), widgets.HTML()
        self._plots = [Plot(bench, self._density), Plot(bench, self._means)]
        controls = tools(
            beta_slider(bench), choice(bench, "outcome", "outcome", OUTCOMES),
            switch(bench, "equalise", "equalise attribute scales"), self._show,
        )  # fmt: skip
        drawn = side_by_side(*(plot.live for plot in self._plots))
        return [controls, self._chosen, self._single, drawn, self._jointly, tools(self._test)]

    def _refresh(self) -> None:
        self._offer()
        table = self._table()
        put(self._single, dependence_listing(table, self.bench.settings.beta).html)
        put(self._jointly, self._joint())
        for plot in self._plots:
            plot.refresh()

    def _offer(self) -> None:
        """A box for each attribute, and the attributes whose groups can be shown."""
        names = self.bench.tables.snapshot.pairs.attribute_names()
        if tuple(self._boxes) != tuple(names):
            self._boxes = {name: self._box(name) for name in names}
            self._chosen.children = tuple(self._boxes.values())
        chosen = self.bench.settings.attributes
        for name, box in self._boxes.items():
            put(box, name in chosen)
        offer(self._show, [column.name for column in self._table().columns], self._attribute())

    def _box(self, name: str) -> Any:  # noqa: ANN401 - ipywidgets has no types
        box = widgets.Checkbox(
            value=name in self.bench.settings.attributes, description=name[:40], indent=False,
            layout={"width": "auto", "margin": "2px 12px"},
        )  # fmt: skip
        box.observe(lambda change: self._choose(name, change["new"]), "value")
        return box

    def _choose(self, name: str, wanted: bool) -> None:
        chosen = self.bench.settings.attributes
        if wanted != (name in chosen):
            others = [each for each in chosen if each != name]
            self.bench.change(attributes=(*others, name) if wanted else tuple(others))

    def _look_at(self, name: str | None) -> None:
        self._shown = name or ""
        with self.bench.lock:
            for plot in self._plots:
                plot.refresh()

    def _attribute(self) -> str:
        table = self._table()
        known = [column.name for column in table.columns]
        return self._shown if self._shown in known else clearest(table) or ""

    def _ask(self) -> None:
        self._tested = self._question()
        with self.bench.lock:
            put(self._jointly, self._joint())
        self.bench.repaint()

    def _question(self) -> object:
        return self.bench.session.version, self.bench.settings.replaced(beta=1.0)

    def _joint(self) -> str:
        table, bench = self._table(), self.bench
        if not table.columns:
            return ""
        rows = joint_rows(bench.tables.joint(bench.settings), bench.settings.beta)
        asked, job = self._tested == self._question(), bench.session.progress(_KIND)
        answer = (
            permutation(bench.session, table, bench.settings, PERMUTATIONS, seed=0)
            if asked
            else None
        )
        test = permutation_row(answer, job, PERMUTATIONS, asked)
        return Listing(["All attributes jointly", "Value"], [*rows, test]).html

    def _table(self) -> FairnessTable:
        return self.bench.tables.fairness(self.bench.settings)

    def _density(self) -> Figure:
        return outcome_densities(self._table(), self._attribute(), self.bench.settings)

    def _means(self) -> Figure:
        return outcome_by_group(self._table(), self._attribute(), self.bench.settings)
