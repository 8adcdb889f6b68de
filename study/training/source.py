"""The code that a user's model is made of, wherever it lies: what its fingerprint covers.

Starting at the name in the config, every definition that it can reach is followed: by name, within a file and through
imports into the user's other files, but not into installed packages. Their code counts; comments, docstrings, layout,
names of files and folders, and unreachable definitions do not. A registry reaches whatever functions put into it. Where
names do not tell what is reached (`eval`, a module passed around), whole files count.
"""

from __future__ import annotations

import ast
import os
import site
import symtable
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache, cached_property
from importlib.metadata import distribution, packages_distributions
from importlib.util import module_from_spec, resolve_name
from pathlib import Path
from types import ModuleType
from weakref import WeakKeyDictionary

from torch import nn

DYNAMIC = {"eval", "exec", "compile", "globals", "vars", "__import__", "import_module"}
"""Functions that make it impossible to tell by name what is reached."""

FILLS = {"add", "append", "extend", "insert", "setdefault", "update"}
"""Methods by which a function fills a container."""

UNSAID = {"ctx", "kind", "type_comment"}
"""Redundant fields of a syntax tree."""

OURS = __name__.partition(".")[0]


def code(module: str, attribute: str, model: nn.Module) -> list[object]:
    """All that `module:attribute`, which made `model`, is made of, in an order that its names give: JSON values.

    `module` has been imported. What is read of a file is what it held when this was first asked in this process, right
    after the import, so that an edit since then changes neither the model nor its fingerprint.
    """
    closure = _Closure()
    if (file := _file(module)) is not None and not closure.reach(file, attribute):
        closure.reach_all(file)
    for kind in sorted({type(part) for part in model.modules()}, key=lambda kind: (kind.__module__, kind.__qualname__)):
        file = None if kind.__module__.startswith(f"{OURS}.") else _file(kind.__module__)
        if file is not None and not closure.reached(file, kind.__qualname__.partition(".")[0]):
            # Made otherwise than by its name.
            closure.reach_all(file)
    return closure.found


Imports = dict[str, tuple[str, str | None]]
"""Name → the module that it is imported from, and its name there; None where it is the module itself."""


def run_again(module: ModuleType) -> ModuleType:
    """What an imported module would be, were it imported anew: what it drew as it was imported is drawn again.

    A module that is not the user's is as it is.
    """
    if (file := _file(module.__name__)) is None or module.__spec__ is None:
        return module
    again = module_from_spec(module.__spec__)
    exec(compile(file.text, module.__file__ or "", "exec"), vars(again))
    return again


class _File:
    """A module of the user's, as it was when it was first asked for."""

    def __init__(self, module: ModuleType) -> None:
        self.name, self._package = module.__name__, module.__package__ or ""
        self.text = Path(module.__file__ or "").read_bytes()

    @cached_property
    def statements(self) -> list[ast.stmt]:
        """The top-level statements, without docstrings and what only a script runs."""
        return [s for s in ast.parse(self.text).body if not _is_main(s) and not _says_nothing(s)]

    @cached_property
    def bound(self) -> dict[str, list[ast.stmt]]:
        """Name → the statements that bind it, or that may change what it stands for."""
        found: dict[str, list[ast.stmt]] = {}
        for statement in self.statements:
            for name in _bound(statement):
                found.setdefault(name, []).append(statement)
        for statement in self.statements:
            if isinstance(statement, ast.Expr):
                # A call may change whatever it is passed: setattr(Net, "act", nn.Tanh).
                given = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
                for name in set() if "print" in given else given & set(found) - set(self.imports):
                    found[name].append(statement)
            else:
                # So may one in a loop: for layer in net: init(layer). Functions are there to be called.
                for name in _touched(statement) & set(found) - set(self.imports):
                    is_function = all(isinstance(s, ast.FunctionDef) for s in found[name])
                    if not is_function and statement not in found[name]:
                        found[name].append(statement)
        return found

    @cached_property
    def imports(self) -> Imports:
        """What is imported at the top level, also within `if` or `try`."""
        outside = (
            s for s in self.statements if not isinstance(s, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
        )
        return {name: source for statement in outside for name, source in self.imported_in(statement).items()}

    @cached_property
    def stars(self) -> list[str]:
        """Modules of which all names are imported."""
        nodes = (node for statement in self.statements for node in ast.walk(statement))
        imports = (node for node in nodes if isinstance(node, ast.ImportFrom))
        return [self._source(node) for node in imports if any(alias.name == "*" for alias in node.names)]

    def imported_in(self, statement: ast.stmt) -> Imports:
        """What is imported anywhere in a statement, also in the functions that it defines."""
        found: Imports = {}
        for node in ast.walk(statement):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    name = alias.asname or alias.name.partition(".")[0]
                    found[name] = (alias.name if alias.asname else name, None)
            elif isinstance(node, ast.ImportFrom):
                source = self._source(node)
                for alias in node.names:
                    inner = f"{source}.{alias.name}"
                    found[alias.asname or alias.name] = (inner, None) if inner in sys.modules else (source, alias.name)
        found.pop("*", None)
        return found

    def _source(self, node: ast.ImportFrom) -> str:
        return resolve_name("." * node.level + (node.module or ""), self._package)

    @cached_property
    def fillers(self) -> dict[str, set[str]]:
        """Containers of this file, such as registries → its functions that put something into them."""
        found: dict[str, set[str]] = {}
        functions = (s for s in self.statements if isinstance(s, ast.FunctionDef))
        for name, node in ((function.name, node) for function in functions for node in ast.walk(function)):
            target = None
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                target = node.value
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FILLS:
                target = node.func.value
            if isinstance(target, ast.Name) and target.id in self.bound:
                found.setdefault(target.id, set()).add(name)
        return found

    def run_at_import(self, functions: set[str]) -> Iterator[ast.stmt]:
        """The statements that call functions of these names as the file is imported, decorators among them."""
        for statement in self.statements:
            if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                run: list[ast.AST] = [*statement.decorator_list]
            else:
                run = [] if isinstance(statement, ast.Import | ast.ImportFrom) else [statement]
            nodes = [node for part in run for node in ast.walk(part)]
            names = {self.imports.get(node.id, (None, node.id))[1] for node in nodes if isinstance(node, ast.Name)}
            if functions & (names | {node.attr for node in nodes if isinstance(node, ast.Attribute)}):
                yield statement


class _Closure:
    """What has been reached so far."""

    def __init__(self) -> None:
        self.found: list[object] = []
        self._seen: set[tuple[str, str]] = set()
        self._whole: set[str] = set()

    def reached(self, file: _File, name: str) -> bool:
        """Whether a name of a file has been reached, or all of the file."""
        return file.name in self._whole or (file.name, name) in self._seen

    def reach(self, file: _File, name: str) -> bool:
        """Add what `name` stands for in `file`, and all that this reaches; whether the file has such a name."""
        if self.reached(file, name):
            return True
        if name not in file.bound:
            stars = [other for source in reversed(file.stars) if (other := _file(source))]
            return any(self.reach(other, name) for other in stars)
        if name in file.imports:
            self._imported(name, *file.imports[name], ())
        self._reach_here(file, name)
        return True

    def _reach_here(self, file: _File, name: str) -> None:
        """Add the statements of `file` that bind `name` or may change what it stands for."""
        if self.reached(file, name):
            return
        self._seen.add((file.name, name))
        for statement in file.bound[name]:
            self._add(file, statement)
        if functions := file.fillers.get(name):
            for other in (file, *_files_that_import(file)):
                for statement in other.run_at_import(functions):
                    self._add(other, statement)

    def reach_all(self, file: _File) -> None:
        """Add all of a file, and of those of the user's that it imports."""
        if file.name in self._whole:
            return
        self._whole.add(file.name)
        for statement in file.statements:
            self._add(file, statement)
            for node in ast.walk(statement):
                for other in (_file(alias.name) for alias in node.names) if isinstance(node, ast.Import) else ():
                    if other is not None:
                        self.reach_all(other)
        for source in file.stars:
            self._imported("*", source, None, ())

    def _add(self, file: _File, statement: ast.stmt) -> None:
        """Add a statement, and reach whatever it names outside itself."""
        local = file.imported_in(statement)
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            self.found.append(_canonical(statement))
        elif file.name not in self._whole:
            return
        names = _names(statement) | set(local)
        if names & DYNAMIC or any(isinstance(n, ast.Attribute) and n.attr in DYNAMIC for n in ast.walk(statement)):
            self.reach_all(file)
        imports = file.imports | local
        for name in sorted(names):
            if name in imports:
                for path in sorted(_paths(statement, name)) or [()]:
                    self._imported(name, *imports[name], path)
            if name in file.imports and name in file.bound:
                self._reach_here(file, name)
            elif name not in imports:
                self.reach(file, name)

    def _imported(self, name: str, module: str, original: str | None, path: tuple[str, ...]) -> None:
        """Reach `name.path[0].path[1]…`, where `name` is a module or, if it has an `original`, of a module."""
        path = path if original is None else (original,)
        while path and f"{module}.{path[0]}" in sys.modules:
            module, path = f"{module}.{path[0]}", path[1:]
        if (file := _file(module)) is None:
            if (entry := [name, module, original]) not in self.found:
                self.found.append(entry)
        elif not path or not self.reach(file, path[0]):
            self.reach_all(file)


_FILES: WeakKeyDictionary[ModuleType, _File | None] = WeakKeyDictionary()


def _file(name: str) -> _File | None:
    """The user's module of this name; None where it is not the user's."""
    module = sys.modules.get(name)
    # Objects of compiled libraries, which no user wrote, may not allow weak references.
    if not isinstance(module, ModuleType) or not type(module).__weakrefoffset__:
        return None
    if module not in _FILES:
        _FILES[module] = _File(module) if _is_users(module) else None
    return _FILES[module]


def remember() -> None:
    """Read all of the user's files that have been imported, before they can be edited."""
    for module in list(sys.modules):
        _file(module)


def _is_users(module: ModuleType) -> bool:
    """Whether a module is neither Python's nor of an installed package, and has a source."""
    top = module.__name__.partition(".")[0]
    # Not getattr, which would trigger lazy imports.
    source = vars(module).get("__file__")
    if source is None or not source.endswith(".py") or not os.path.isfile(source):
        return False
    # By its place, since a user's file may be named as one of Python's: code.py, profile.py.
    if source.startswith(_STANDARD) and not source.startswith(_INSTALLED):
        return False
    return top == OURS or not (source.startswith(_INSTALLED) or _is_installed(top, source))


def _is_installed(top: str, source: str) -> bool:
    """Whether a file is of a package installed elsewhere on the path, as by `pip install --target`."""
    for name in _distributions().get(top, ()):
        found = distribution(name)
        # One in editable mode has its metadata there, but not its source; a folder of sources has no installer.
        folder = os.path.join(str(found.locate_file("")), "")
        if source.startswith(folder) and found.read_text("INSTALLER") is not None:
            return True
    return False


_distributions = cache(packages_distributions)


_PATHS = (*site.getsitepackages(), site.getusersitepackages(), *map(sysconfig.get_path, ("purelib", "platlib")))
_STANDARD = os.path.join(os.path.dirname(os.__file__), "")
_INSTALLED = tuple({os.path.join(folder, "") for folder in _PATHS})


def _files_that_import(file: _File) -> Iterator[_File]:
    for name in sorted(sys.modules):
        other = _file(name)
        if other is not None and file.name in {*other.stars, *(source for source, _ in other.imports.values())}:
            yield other


def _is_main(statement: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == "__main__":`."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "__name__ == '__main__'"


def _says_nothing(statement: object) -> bool:
    """Whether a statement is `pass`, or a text alone: a docstring, or a comment in quotes."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass)


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement binds, or of which it sets an attribute or an item."""
    table = symtable.symtable(ast.unparse(statement), "statement", "exec")
    names = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return names
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            names |= {inner.id for inner in ast.walk(node.value) if isinstance(inner, ast.Name)}
    return names


def _touched(node: ast.AST) -> set[str]:
    """The names of what a loop, `with`, `if` or `try`, or an assignment to `_`, iterates over or passes to calls."""
    if isinstance(node, ast.For | ast.With | ast.If | ast.Try | ast.While | ast.ExceptHandler):
        children = (child for child in ast.iter_child_nodes(node) if child is not getattr(node, "test", None))
        return set().union(*map(_touched, children))
    thrown_away = isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["_"]
    if isinstance(node, ast.stmt) and not isinstance(node, ast.Expr) and not thrown_away:
        return set()
    called = {inner.func for inner in ast.walk(node) if isinstance(inner, ast.Call)}
    names = {inner for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return set() if any(name.id == "print" for name in names) else {name.id for name in names - called}


def _names(statement: ast.stmt) -> set[str]:
    """The names that a statement reads from its file: globals, not its own local ones."""

    def of(table: symtable.SymbolTable, top: bool) -> Iterator[str]:
        for symbol in table.get_symbols():
            in_class = table.get_type() == "class"
            if symbol.is_referenced() and (top or symbol.is_global() or (in_class and symbol.is_assigned())):
                yield symbol.get_name()
        for child in table.get_children():
            yield from of(child, False)

    return set(of(symtable.symtable(ast.unparse(statement), "statement", "exec"), True))


def _paths(statement: ast.stmt, name: str) -> set[tuple[str, ...]]:
    """The attributes that are asked of `name`, as far as they go: {("nn", "Linear")} of torch.nn.Linear."""
    found, inner = set(), set()
    for node in ast.walk(statement):
        path: tuple[str, ...] = ()
        base: ast.AST = node
        while isinstance(base, ast.Attribute):
            path, base = (base.attr, *path), base.value
            inner.add(base)
        if node not in inner and isinstance(base, ast.Name) and base.id == name:
            found.add(path)
    return found


def _canonical(node: object) -> object:
    """A syntax tree as JSON values, alike in all versions of Python: no places, no docstrings, nothing empty."""
    if isinstance(node, list):
        return [_canonical(item) for item in node if not _says_nothing(item)]
    if not isinstance(node, ast.AST):
        return node if isinstance(node, str | int | None) else [type(node).__name__, repr(node)]
    fields = ((field, getattr(node, field, None)) for field in node._fields if field not in UNSAID)
    said = {field: _canonical(value) for field, value in fields if value is not None}
    return [type(node).__name__, {field: value for field, value in said.items() if value != []}]
