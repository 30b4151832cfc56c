"""Draw the wings of the code and their imports into docs/architecture.md.

`python scripts/architecture.py` prints the picture, `--write` replaces it in the page. A wing is a folder of code; an
arrow means an import. Arrows implied by other arrows are left out.
"""

from __future__ import annotations

import argparse
import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = (
    "<!-- shown: a picture, which scripts/architecture.py draws -->",
    "<!-- end of wings -->",
)
PACKAGES = {
    "radfound": ROOT / "radfound",
    "training": ROOT / "training",
    "monailabel_app": ROOT / "monailabel_app",
    "RadFoundLib": ROOT / "slicer_extension" / "RadFound" / "RadFoundLib",
}
# Imported from everywhere; their arrows would clutter the picture.
UNDRAWN = {"radfound", "radfound.exceptions", "training", "monailabel_app", "monailabel_app.lib"}


def modules() -> dict[str, Path]:
    """Return every module of the packages by its dotted name."""
    found = {}
    for name, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = (name, *path.relative_to(folder).with_suffix("").parts)
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports() -> dict[str, set[str]]:
    """Return each module's imports from this project, including those in functions and for types only."""
    known = modules()
    return {name: set(_imported(name, path, known)) - {name} for name, path in known.items()}


def _imported(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(parts if node.level else []), *filter(None, [node.module])])
            for alias in node.names:
                inside = f"{base}.{alias.name}"
                if inside in known:
                    yield inside
                elif base in known:
                    yield base


def wing_of(module: str) -> str:
    """Return the wing of a module: its folder below the package, or the module itself at the top."""
    parts = module.split(".")
    return ".".join(parts[: 3 if parts[:2] == ["monailabel_app", "lib"] else 2])


def wings() -> dict[str, set[str]]:
    """Return the wings that each wing imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, targets in imports().items():
        if module not in PACKAGES:  # a package's __init__ re-exports from its wings
            found[wing_of(module)] |= {wing_of(target) for target in targets}
    return {wing: targets - {wing} for wing, targets in found.items()}


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the import cycles: groups of two or more that import each other, directly or not."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(graph.get(start, ()))
        while waiting:
            if (each := waiting.pop()) not in seen:
                seen.add(each)
                waiting += graph.get(each, ())
        return seen

    reach = {each: reached(each) for each in graph}
    groups = {
        tuple(sorted(other for other in reach[each] if each in reach.get(other, ())))
        for each in graph
        if each in reach[each]
    }
    return [list(group) for group in sorted(groups) if len(group) > 1]


def picture() -> str:
    """Return the wings and their imports as a Mermaid flowchart."""
    graph = {
        wing: {target for target in targets if target not in UNDRAWN}
        for wing, targets in sorted(wings().items())
        if wing not in UNDRAWN
    }
    lines = ["```mermaid", "flowchart TD"]
    for package in PACKAGES:
        inside = [wing for wing in graph if wing.split(".")[0] == package]
        lines += [f"  subgraph {package}"]
        lines += [f'    {_node(wing)}["{_label(wing)}"]' for wing in inside]
        lines += ["  end"]
    for wing, targets in graph.items():
        lines += [
            f"  {_node(wing)} --> {_node(target)}" for target in _direct(wing, targets, graph)
        ]
    return "\n".join([*lines, "```"])


def _direct(wing: str, targets: set[str], graph: Mapping[str, set[str]]) -> list[str]:
    """Return the targets that no other target leads to."""

    def leads_to(start: str, goal: str, seen: set[str]) -> bool:
        seen.add(start)
        return any(
            each == goal or (each not in seen and leads_to(each, goal, seen))
            for each in graph.get(start, ())
            if each != wing
        )

    return sorted(t for t in targets if not any(leads_to(o, t, set()) for o in targets - {t}))


def _node(wing: str) -> str:
    return wing.replace(".", "_")


def _label(wing: str) -> str:
    return wing.removeprefix("monailabel_app.lib.").partition(".")[2] or wing.rpartition(".")[2]


def page(text: str) -> str:
    """Return the page with the current picture."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{picture()}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Print or write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="replace the picture in the page")
    if parser.parse_args().write:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(picture())


if __name__ == "__main__":
    main()
