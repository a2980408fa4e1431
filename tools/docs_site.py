"""What mkdocs cannot do by itself: notebooks, reference pages, the command line, and formulas.

A hook of mkdocs.yml. It adds the notebooks (which lie outside of the docs folder) and a page for
each package to the site and its navigation, and draws every formula when the site is built.
"""

import ast
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "workbench": "The top level",
    "workbench.bench": "In a notebook",
    "workbench.course": "The course",
    "workbench.metrics": "Metrics",
    "workbench.objectives": "Objectives",
    "workbench.data": "Data",
    "workbench.scoring": "Scoring",
    "workbench.training": "Training",
    "workbench.engine": "The session engine",
    "workbench.study": "The frame of studies",
    "workbench.studies": "Studies",
    "workbench.views": "Views",
    "workbench_widgets": "Widgets",
}
_OUTSIDE = re.compile(r"<(script|link)\b[^>]*\b(?:src|href)=\"https?://[^>]*>(?:</script>)?")
_MATHS = re.compile(r"<(span|div) class=\"arithmatex\">\s*\\[(\[](.+?)\\[)\]]\s*</\1>", re.DOTALL)
_DOLLARS = re.compile(
    r"(?<![\\$\w])(?:(?P<block>\$\$)(?P<lines>[^$]+)\$\$|\$(?=[^\s$])(?P<words>[^$]+?)(?<=\S)\$)(?![\w$])"
)
_NESTED = "[^{}]*"
for _ in range(4):
    _NESTED = rf"(?:[^{{}}]|{{{_NESTED}}})*"
_TEXT = re.compile(r"\\text{([^{}]*)}")
_FOR_MATHTEXT = (
    (r"\\frac(\w)(?=[{\w])", r"\\frac{\1}"),
    (r"\\frac({[^{}]*})(\w)", r"\\frac\1{\2}"),
    (r"\\sqrt (\w)", r"\\sqrt{\1}"),
    (r"\\tag{([^{}]*)}", r"\\qquad \\text{(\1)}"),
    (rf"\\underbrace{{({_NESTED})}}_{{({_NESTED})}}", r"\\underset{\2}{\1}"),
    (r"\\[lr]Vert(?![a-zA-Z])", r"\\|"),
)
_KEPT_AS_IS = re.compile(r"(<(pre|code|script|style)\b.*?</\2>|<[^>]+>)", re.DOTALL)


def modules(package: str) -> list[str]:
    """The public modules of a package (of `workbench` itself only those at the top level)."""
    folder = (
        ROOT / ("widgets" if package == "workbench_widgets" else "") / package.replace(".", "/")
    )
    found = folder.glob("*.py") if package == "workbench" else folder.rglob("*.py")
    names = {_module(path) for path in found if "bundled" not in path.parts}
    return sorted(name for name in names if not any(p.startswith("_") for p in name.split(".")))


def _module(path: Path) -> str:
    start = ROOT / "widgets" if "workbench_widgets" in path.parts else ROOT
    parts = path.relative_to(start).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def public_names(module: str) -> list[str]:
    """The public functions and classes that a module defines, with the module's name."""
    start = ROOT / "widgets" if module.startswith("workbench_widgets") else ROOT
    path = start / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = [
        node.name for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, kinds)
    ]
    return [f"{module}.{name}" for name in names if not name.startswith("_")]


def reference_pages() -> dict[str, str]:
    """The reference's pages by their place below docs: one a package, and the command line."""
    pages = {"reference/command_line.md": _command_line()}
    for package, title in PACKAGES.items():
        parts = "\n\n".join(f"::: {module}" for module in modules(package))
        pages[f"reference/{package.replace('.', '_')}.md"] = f"# {title}: `{package}`\n\n{parts}\n"
    return pages


def _command_line() -> str:
    from workbench.app.cli import app

    text = app.generate_docs(output_format="markdown", max_heading_level=4)
    return re.sub(r"^# .*$", "# Command line: `workbench`", text, count=1, flags=re.MULTILINE)


def notebooks() -> Iterator[tuple[str, Path]]:
    """Place below docs and file of every notebook that is there."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        yield f"notebooks/{path.name}", path
    for path in sorted((ROOT / "notebooks" / "course").glob("*.ipynb")):
        yield f"notebooks/course/{path.name}", path


def title_of(notebook: Path) -> str:
    """The first heading of a notebook, or its file's name."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if found := re.search(r"^#\s+(.+)$", "".join(cell["source"]), re.MULTILINE):
            return found[1].strip()
    return notebook.stem.replace("_", " ")


def on_config(config: Any) -> Any:  # noqa: ANN401 - mkdocs' own
    """Complete the navigation."""
    pages: dict[str, list[dict[str, str]]] = {"Notebooks": [], "The course": []}
    for place, path in notebooks():
        pages["The course" if "/course/" in place else "Notebooks"].append({title_of(path): place})
    named = [
        {title: f"reference/{package.replace('.', '_')}.md"} for package, title in PACKAGES.items()
    ]
    first = [{"Command line": "reference/command_line.md"}, {"Files": "reference/files.md"}]
    sections = {**pages, "Reference": [*first, *named]}
    added = [{title: items} for title, items in sections.items() if items]
    if (ROOT / "docs" / "classroom.md").is_file():
        guides = next(entry["How-to guides"] for entry in config["nav"] if "How-to guides" in entry)
        guides.append({"Classroom": "classroom.md"})
    config["nav"] = [*config["nav"][:3], *added, *config["nav"][3:]]
    return config


@event_priority(100)  # before mkdocs-jupyter looks for notebooks
def on_files(files: Files, config: Any) -> Files:  # noqa: ANN401 - mkdocs' own
    """Add notebooks and reference pages to the site."""
    for place, text in reference_pages().items():
        files.append(File.generated(config, place, content=text))
    for place, _ in notebooks():
        files.append(File(place, str(ROOT), config["site_dir"], config["use_directory_urls"]))
    return files


def on_page_content(content: str, page: Any, **_: Any) -> str:  # noqa: ANN401 - mkdocs' own
    """Draw formulas, and drop what a notebook's template would fetch from elsewhere."""
    if page.file.src_uri.endswith(".ipynb"):
        content = _draw_dollars(_OUTSIDE.sub("", content))
    return _MATHS.sub(lambda found: drawn(found[2], block=found[1] == "div"), content)


def _draw_dollars(content: str) -> str:
    """Draw the formulas in a notebook's text; tags and code stay as they are."""
    parts = _KEPT_AS_IS.split(content)
    for place in range(0, len(parts), 3):
        parts[place] = _DOLLARS.sub(_drawn_dollars, parts[place])
    return "".join(part for place, part in enumerate(parts) if place % 3 != 2)


def _drawn_dollars(found: re.Match[str]) -> str:
    return drawn(found["lines"] or found["words"], block=bool(found["block"]))


def drawn(latex: str, *, block: bool) -> str:
    """A formula as SVG that stands on the line of its text."""
    from workbench.views.formula import formula_svg

    latex = " ".join(html.unescape(latex).split())
    for short, full in _FOR_MATHTEXT:
        latex = re.sub(short, full, latex)
    latex = _TEXT.sub(lambda f: "\\mathrm{" + f[1].replace(" ", r"\ ") + "}", latex)
    if block:
        latex = latex.replace(r"\frac", r"\dfrac")
    try:
        svg = formula_svg(latex, 19.0 if block else 16.5)
    except ValueError as error:
        raise ValueError(f"The formula {latex!r} cannot be drawn: {error}") from error
    _, top, _, height = map(float, re.findall(r"viewBox='([^']+)'", svg)[0].split())
    if block:
        return f'<div class="formula-block">{svg}</div>'
    sunk = svg.replace("style='", f"style='vertical-align: {-(top + height):.1f}px; ", 1)
    return f'<span class="formula">{sunk}</span>'
