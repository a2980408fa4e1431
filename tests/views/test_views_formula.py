import xml.etree.ElementTree as ET

import pytest

from workbench.objectives.catalogue import MODIFIERS, OBJECTIVES
from workbench.views.formula import formula_svg, mathtext

FORMULAS = {entry.name: entry.formula for entry in (*OBJECTIVES.values(), *MODIFIERS.values())}


@pytest.mark.parametrize("name", FORMULAS)
def test_every_formula_of_the_catalogue_can_be_drawn(name: str) -> None:
    svg = ET.fromstring(formula_svg(FORMULAS[name]))
    (path,) = svg
    assert len(path.attrib["d"]) > 100
    assert float(svg.attrib["width"]) > 20
    assert svg.attrib["aria-label"] == FORMULAS[name]


def test_a_formula_takes_the_colour_of_the_text_and_nothing_from_elsewhere() -> None:
    drawn = formula_svg(r"-\log\sigma(\beta d)")
    assert "fill='currentColor'" in drawn
    assert "http" not in drawn
    assert "font" not in drawn


def test_short_fractions_and_accents_are_written_out() -> None:
    assert mathtext(r"\tfrac12 x") == r"\frac{1}{2} x"
    assert mathtext(r"\tfrac{a}{b}") == r"\frac{a}{b}"
    assert mathtext(r"\bar p_w") == r"\bar{p}_w"
    assert mathtext(r"\Big(x\Big)") == "(x)"


def test_a_hostile_formula_is_escaped() -> None:
    drawn = formula_svg("a < b' & c")
    assert ET.fromstring(drawn).attrib["aria-label"] == "a < b' & c"


def test_what_is_no_formula_is_refused() -> None:
    with pytest.raises(ValueError, match="frac"):
        formula_svg(r"\frac{1}")
