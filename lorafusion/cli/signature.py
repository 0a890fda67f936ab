"""What a class or function accepts, read from its source with `ast`. Nothing is imported, so torch stays unloaded."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

Named = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class NoSuchTarget(Exception):
    """A dotted name leads nowhere.

    missing:  the first part that is not there.
    names:    what is there in its place.
    write:    the whole name with a gap {} for one of these.
    """

    def __init__(self, target: str, rest: list[str], names: list[str]):
        super().__init__(target)
        parts = target.split(".")
        before, after = parts[: len(parts) - len(rest)], rest[1:]
        self.missing, self.names, self.write = rest[0], names, ".".join([*before, "{}", *after])


@dataclass(frozen=True)
class Module:
    name: str
    file: Path | None  # None = a folder without __init__.py
    folder: Path | None  # where the submodules of a package lie

    def statements(self) -> Iterator[ast.stmt]:
        yield from _flat(parse(self.file).body) if self.file else ()

    def open(self) -> bool:
        """Whether it may define names that its source does not show."""
        stars = (s for s in self.statements() if isinstance(s, ast.ImportFrom) and s.names[0].name == "*")
        return next(stars, None) is not None or "__getattr__" in names(self)


@dataclass(frozen=True)
class Definition:
    module: Module
    node: ast.AST


@dataclass(frozen=True)
class Parameter:
    module: Module
    annotation: ast.expr | None


@dataclass(frozen=True)
class Signature:
    """parameters: by name. open: whether ``**kwargs`` takes any other. node: the class or function."""

    parameters: dict[str, Parameter]
    open: bool
    node: Named

    def remark(self, name: str) -> str:
        """What the docstring says of a parameter: the rest of the line `name:  ...`; '' if nothing."""
        found = re.search(
            rf"^\s*(?:\w+, )*{re.escape(name)}(?:, \w+)*:\s+(.+)$", ast.get_docstring(self.node) or "", re.M
        )
        return found[1] if found else ""


@cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def signature(target: str) -> Signature | None:
    """Signature of the class or function that a dotted name names; None where the source does not tell.

    Raises NoSuchTarget where the source shows that there is none.
    """
    module, rest = _locate(target)
    if module is None and not importlib.util.find_spec(target.partition(".")[0]):
        raise NoSuchTarget(target, target.split("."), ["lorafusion", "lightning", "torch"])
    if module is None or not rest:
        return None
    found = resolve(module, rest[0])
    if found is None:
        if module.open():
            return None
        raise NoSuchTarget(target, rest, names(module))
    for part in rest[1:]:  # a method of a class
        methods = [n for n in getattr(found.node, "body", []) if getattr(n, "name", None) == part]
        if not methods:
            return None
        found = Definition(found.module, methods[-1])
    return _of(found, bound=len(rest) > 1)


def definition(target: str) -> Definition | None:
    """Where the class or function that a dotted name names is defined; None where the source does not tell."""
    module, rest = _locate(target)
    return resolve(module, rest[0]) if module and len(rest) == 1 else None


def _locate(target: str) -> tuple[Module | None, list[str]]:
    """The deepest module on a dotted path, and the parts left over."""
    first, *rest = target.split(".")
    spec = importlib.util.find_spec(first) if first.isidentifier() else None  # a top-level name: imports nothing
    if spec is None:
        return None, rest
    if not spec.submodule_search_locations:
        file = Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
        return (Module(first, file, None) if file else None), rest
    folder = Path(next(iter(spec.submodule_search_locations)))
    module = Module(first, _init(folder), folder)
    while rest and (below := _below(module, rest[0])) is not None:
        module, rest = below, rest[1:]
    return module, rest


def _below(module: Module, part: str) -> Module | None:
    if module.folder is None or not module.folder.is_dir():
        return None
    entries = {p.name: p for p in module.folder.iterdir()}  # exact case, on every file system
    name = f"{module.name}.{part}"
    if part in entries and entries[part].is_dir():
        return Module(name, _init(entries[part]), entries[part])
    return Module(name, entries[f"{part}.py"], None) if f"{part}.py" in entries else None


def _init(folder: Path) -> Path | None:
    file = folder / "__init__.py"
    return file if file.is_file() else None


def names(module: Module) -> list[str]:
    """What a module defines or imports, and its submodules."""
    found = [p.stem for p in module.folder.iterdir() if p.suffix == ".py" or p.is_dir()] if module.folder else []
    for statement in module.statements():
        if isinstance(statement, Named):
            found.append(statement.name)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            found += [alias.asname or alias.name for alias in statement.names]
    return [name for name in found if name.isidentifier()]


def resolve(module: Module, name: str, depth: int = 8) -> Definition | None:
    """Where ``name``, used in a module, is defined; follows imports."""
    for statement in module.statements():
        if isinstance(statement, Named) and statement.name == name:
            return Definition(module, statement)
        if isinstance(statement, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in statement.targets
        ):
            return Definition(module, statement.value)
        if isinstance(statement, ast.AnnAssign) and statement.value and ast.unparse(statement.target) == name:
            return Definition(module, statement.value)
        if isinstance(statement, ast.ImportFrom) and depth:
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    source, rest = _locate(f"{_absolute(module, statement)}.{alias.name}")
                    return resolve(source, rest[0], depth - 1) if source and len(rest) == 1 else None
    return None


def _absolute(module: Module, statement: ast.ImportFrom) -> str:
    if not statement.level:
        return statement.module or ""
    parts = module.name.split(".")
    parts = parts[: len(parts) - statement.level + (module.folder is not None)]
    return ".".join([*parts, *filter(None, [statement.module])])


def _flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, also those under `if` and `try`."""
    for statement in body:
        if isinstance(statement, ast.If | ast.Try):
            yield from _flat(statement.body)
            yield from _flat(statement.orelse)
            for handler in getattr(statement, "handlers", []):
                yield from _flat(handler.body)
        else:
            yield statement


def _of(found: Definition, bound: bool = False) -> Signature | None:
    if isinstance(found.node, ast.ClassDef):
        return _of_class(found.module, found.node)
    if isinstance(found.node, ast.FunctionDef | ast.AsyncFunctionDef):
        return _of_function(found.module, found.node, found.node, bound)
    return None


def _of_class(module: Module, node: ast.ClassDef) -> Signature | None:
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name in ("__init__", "__new__"):
            return _of_function(module, member, node, bound=True)
    inherited = [_base(module, base) for base in node.bases]
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        fields = {
            member.target.id: Parameter(module, member.annotation)
            for member in node.body
            if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name)
        }
        above = {name: p for base in inherited if base for name, p in base.parameters.items()}
        return Signature({**above, **fields}, None in inherited, node)
    if None in inherited:
        return None
    known = [base for base in inherited if base and (base.parameters or base.open)]
    return Signature(known[0].parameters if known else {}, bool(known and known[0].open), node)


def _base(module: Module, base: ast.expr) -> Signature | None:
    if isinstance(base, ast.Subscript):
        base = base.value
    if isinstance(base, ast.Name) and base.id in ("object", "Protocol", "Generic", "ABC"):
        return Signature({}, False, ast.ClassDef(base.id, [], [], [], []))
    found = resolve(module, base.id) if isinstance(base, ast.Name) else None
    return _of(found) if found else None


def _of_function(
    module: Module, function: ast.FunctionDef | ast.AsyncFunctionDef, node: Named, bound: bool
) -> Signature:
    arguments = [*function.args.posonlyargs, *function.args.args][1 if bound else 0 :] + function.args.kwonlyargs
    parameters = {argument.arg: Parameter(module, argument.annotation) for argument in arguments}
    return Signature(parameters, function.args.kwarg is not None, node)
