"""The numbers of the paper's code on pg15training (arXiv 2509.08163), to stand beside ours."""

from workbench.study.base import Paper

PAPER = Paper(
    title=(
        "Machine Learning with Multitype Protected Attributes: Intersectional Fairness through "
        "Regularisation"
    ),
    authors=("Ho Ming Lee", "Katrien Antonio", "Benjamin Avanzi", "Lorenzo Marchi", "Rui Zhou"),
    year=2025,
    venue="arXiv",
    arxiv="2509.08163",
    bibtex="""@misc{lee2025machine,
  title = {Machine Learning with Multitype Protected Attributes: Intersectional Fairness through \
Regularisation},
  author = {Lee, Ho Ming and Antonio, Katrien and Avanzi, Benjamin and Marchi, Lorenzo and \
Zhou, Rui},
  year = {2025},
  eprint = {2509.08163},
  archivePrefix = {arXiv},
}""",
)
COLUMNS = ("rps", "ccdcov", "jdcov", "js", "uf")
_NONE = (0.11919, 9.138e-4, 1.4778e-3, 0.028887, 0.077355)
VALIDATION: dict[tuple[str, float], tuple[float, ...]] = {
    ("none", 0.0): _NONE,
    ("CCdCov", 10.0): (0.11974, 1.965e-4, 5.463e-4, 0.0078827, 0.020297),
    ("CCdCov", 20.0): (0.12021, 9.415e-5, 4.129e-4, 0.0038281, 0.010038),
    ("CCdCov", 40.0): (0.12081, 4.452e-5, 3.479e-4, 0.0016394, 0.0046997),
    ("CCdCov", 80.0): (0.12148, 2.513e-5, 3.219e-4, 8.171e-4, 0.0026398),
    ("CCdCov", 120.0): (0.12191, 2.028e-5, 3.148e-4, 6.281e-4, 0.0022476),
    ("CCdCov", 150.0): (0.12212, 1.877e-5, 3.123e-4, 5.648e-4, 0.0021331),
    ("JdCov", 10.0): (0.11992, 1.522e-4, 4.884e-4, 0.0061469, 0.015941),
    ("JdCov", 20.0): (0.12049, 6.926e-5, 3.801e-4, 0.0027096, 0.0073856),
    ("JdCov", 40.0): (0.12120, 3.382e-5, 3.331e-4, 0.0011719, 0.0036141),
    ("JdCov", 80.0): (0.12196, 2.117e-5, 3.153e-4, 6.789e-4, 0.0024392),
    ("JdCov", 120.0): (0.12255, 1.702e-5, 3.085e-4, 5.188e-4, 0.0021781),
    ("JdCov", 150.0): (0.12286, 1.475e-5, 3.039e-4, 4.548e-4, 0.0020803),
}
"""Validation means of 10 seeds by regulariser and lambda; `COLUMNS`, js in bits."""
TEST = {
    "none": (0.12248, 1.0083e-3, 1.3230e-3, 0.028238, 0.080775),
    "CCdCov": (0.12314, 5.846e-5, 8.452e-5, 0.0018170, 0.0061750),
    "JdCov": (0.12366, 5.288e-5, 7.522e-5, 0.0015035, 0.0056544),
}
"""Test values at the chosen lambda (CCdCov 40, JdCov 30)."""
TEST_DEVIANCE = {"none": 0.54503, "CCdCov": 0.54936, "JdCov": 0.55378}
CHOSEN = {"CCdCov": 40.0, "JdCov": 30.0}
PAPER_GRID = tuple(float(weight) for weight in range(0, 151, 10))
