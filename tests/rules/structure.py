"""Counts what the import rules speak of: modules, arrows between them, floors, the largest file.

    python -m tests.rules.structure [ROOT]

A module is a file with code in it. An arrow is one module that imports another of the same top-level package, anywhere
in the file, also for type checking. A module that imports none on being imported itself stands on the first floor, any
other one above the highest of those.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from importlib.util import resolve_name
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
PACKAGES = ("study", "analysis")

Arrows = Mapping[str, set[str]]
"""Every module and those that it imports."""


def sources(root: Path = ROOT) -> list[str]:
    """Every Python file of the two packages, by its path from the root."""
    return sorted(str(p.relative_to(root)) for package in PACKAGES for p in (root / package).rglob("*.py"))


def imported(file: str, source: str, *, at_once: bool = False) -> set[str]:
    """Every module that a file's source imports: anywhere, also for type checking, or only `at_once`, as it starts."""
    package = file.rpartition("/")[0].replace("/", ".")
    names = set()
    tree = ast.parse(source)
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def _around(module: str) -> set[str]:
    """The packages that a module lies in, which are imported before it whoever asks for it."""
    parts = module.split(".")
    return {".".join(parts[:n]) for n in range(1, len(parts))}


def arrows(root: Path = ROOT, *, at_once: bool = False) -> Arrows:
    """The modules of both packages and which of them each imports. A package that only contains them is no module."""
    texts = {file: (root / file).read_text() for file in sources(root)}
    modules = {
        file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file
        for file, text in texts.items()
        if ast.parse(text).body
    }
    return {
        module: {name for name in imported(file, texts[file], at_once=at_once) if name in modules}
        - {module, *_around(module)}
        for module, file in modules.items()
    }


def reachable(found: Arrows) -> Arrows:
    """Every module and all that it imports, directly or through others."""
    reach = {module: set(targets) for module, targets in found.items()}
    for middle in reach:
        for targets in reach.values():
            if middle in targets:
                targets |= reach[middle]
    return reach


def cycles(found: Arrows) -> set[str]:
    """The modules that import themselves, directly or through others."""
    return {module for module, targets in reachable(found).items() if module in targets}


def floors(found: Arrows) -> int:
    """The length of the longest chain of imports, where no module imports itself."""
    reach = reachable(found)
    height: dict[str, int] = {}
    for module in sorted(reach, key=lambda m: len(reach[m])):  # what a module reaches, reaches less
        height[module] = 1 + max((height[other] for other in reach[module]), default=0)
    return max(height.values(), default=0)


def lines(root: Path, found: Arrows) -> Iterator[tuple[int, str]]:
    """Each module's number of lines."""
    for module in found:
        path = root / module.replace(".", "/")
        file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        yield len(file.read_text().splitlines()), module


def within(package: str, found: Arrows) -> Arrows:
    """The arrows between modules of one package."""
    return {
        module: {target for target in targets if target.startswith(f"{package}.")}
        for module, targets in found.items()
        if module.split(".")[0] == package
    }


def main(root: Path) -> None:
    whole, at_once = arrows(root), arrows(root, at_once=True)
    print(f"{'':10}{'modules':>9}{'arrows':>9}{'floors':>9}{'in cycles':>11}{'median':>9}{'largest':>9} lines")
    for package in PACKAGES:
        own = within(package, whole)
        sizes = sorted(lines(root, own))
        print(
            f"{package:10}{len(own):9}{sum(map(len, own.values())):9}{floors(within(package, at_once)):9}"
            f"{len(cycles(own)):11}{median(size for size, _ in sizes):9.0f}{sizes[-1][0]:9} {sizes[-1][1]}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ROOT)
