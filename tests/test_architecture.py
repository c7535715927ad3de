"""docs/architecture.md: its diagram is the import graph."""

import re
from pathlib import Path

import grimp
import networkx

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "architecture.md"
ARROW = re.compile(r"^ +(\S+) --> (\S+)$", re.MULTILINE)
ROOTS = ("flows", "presets", "tasks", "safelight")
GROUND = "ground"
ONE_ENGINE_EACH = "each-engine"
CORE = (
    "safelight.engines.add_on_use",
    "safelight.engines.choosing",
    "safelight.engines.films",
    "safelight.engines.graphs",
    "safelight.engines.identity",
    "safelight.engines.instant_id",
    "safelight.engines.interface",
    "safelight.engines.judging",
    "safelight.engines.larger_videos",
    "safelight.engines.lips",
    "safelight.engines.mending",
    "safelight.engines.object_info",
    "safelight.engines.results",
    "safelight.engines.work",
    "safelight.engines.training",
)


def room(module: str) -> str:
    """Where the diagram has a module."""
    parts = module.split(".")
    if parts[0] != "safelight":
        inner = parts[1] if len(parts) > 2 else ""
        return f"{parts[0]}.{inner}" if inner else parts[0]
    if len(parts) == 1 or not (CHECKOUT / "safelight" / parts[1]).is_dir():
        return GROUND
    if parts[1] != "engines" or module in CORE:
        return parts[1]
    shared = parts[2] in ("machine", "remote")
    return f"engines.{parts[2]}" if shared else ONE_ENGINE_EACH


def test_the_diagram_is_the_import_graph():
    graph = grimp.build_graph(*ROOTS)
    packages = {name for name in graph.modules if graph.find_children(name)}
    found = networkx.DiGraph()
    for module in graph.modules - packages:
        for imported in graph.find_modules_directly_imported_by(module) - packages:
            if room(module) != room(imported):
                found.add_edge(room(module), room(imported))
    assert networkx.is_directed_acyclic_graph(found)
    drawn = set(ARROW.findall(PAGE.read_text().partition("```mermaid")[2].partition("```")[0]))
    assert drawn == set(networkx.transitive_reduction(found).edges)


def test_decisions_are_numbered_dated_and_listed():
    folder = CHECKOUT / "docs" / "decisions"
    found = sorted(path.name for path in folder.glob("[0-9]*.md"))
    listed = re.findall(
        r"^\| (\d+) \| \[(.+)\]\((.+)\) \| (\d{4}-\d\d-\d\d) \|$",
        (folder / "README.md").read_text(),
        re.MULTILINE,
    )
    assert [name for _, _, name, _ in listed] == found
    for position, (number, title, name, date) in enumerate(listed, 1):
        assert int(number) == position == int(name[:4])
        text = (folder / name).read_text()
        assert text.startswith(f"# {number}. {title}\n\nDecided {date}.\n\n")


def test_names_kept_for_scripts_hold_no_code_and_serve_nobody_here():
    """Each is a line of imports; only the one of the drawing engine is used, by tests."""
    kept = ("flows.requests", "flows.laying_out", "tasks.ingest", "tasks.sizing")
    graph = grimp.build_graph(*ROOTS)
    for module in (*kept, "safelight.engines.diffusion"):
        lines = (CHECKOUT / (module.replace(".", "/") + ".py")).read_text().splitlines()
        assert not [line for line in lines if line.startswith(("def ", "class ", "if "))]
    for module in kept:
        assert not graph.find_modules_that_directly_import(module)
