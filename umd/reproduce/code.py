"""Which of the project's files a step runs: read from their syntax trees, without importing one of them.

A step's digest covers these files alone, so that a new data set or another report leaves finished trainings alone.
Where it cannot be told whether a file counts, it does.
"""

from __future__ import annotations

import ast
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("umd", "callbacks", "datamodules")
_NO_DATA = (".py", ".pyc", ".md", ".yaml")  # a config counts by its text, where a step names it


class Code:
    """The source files of this project.

    The faces of packages (`__init__.py`) import everything, so nothing is followed through them: a name is looked up
    in the face and found in the file that defines it. What happens because a face imports a file counts all the same:
    one that registers a builder where that name is asked for, and one that does more than define wherever it is loaded.
    What a file imports by a name that it works out is one of the classes that the command is given, and counts as such.

    Args:
        root: the folder that holds the packages umd, callbacks and datamodules.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        files = [path for package in PACKAGES for path in sorted((root / package).rglob("*")) if path.is_file()]
        self._modules = {_module(path.relative_to(root)): path for path in files if path.suffix == ".py"}
        self._data = [path for path in files if path.suffix not in _NO_DATA and not path.name.startswith(".")]
        self._sources: dict[str, _Source] = {}
        self._digests: dict[frozenset[Path], str] = {}

    def digest(self, files: Iterable[Path]) -> str:
        """Hexadecimal digest of some files, of their names and their content."""
        key = frozenset(files)
        if key not in self._digests:
            digest = hashlib.sha256()
            for path in sorted(key):
                digest.update(path.relative_to(self._root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
            self._digests[key] = digest.hexdigest()
        return self._digests[key]

    def files(self, entry: str, words: Iterable[str]) -> set[Path]:
        """All files that can change what a command does.

        Args:
            entry: the module that the command starts in, such as "umd.commands.train".
            words: what it is given; classes ("umd.VQAClassifier", "VQARAD") and encoders ("tiny_vit") are found
                among them by their names.
        """
        asked = set(words)
        ahead = {entry}.union(*(self._class(word) for word in asked))
        found: set[str] = set()
        while ahead:
            found |= _closure(ahead, self._used)
            # The default of an argument asks for an encoder just as a config does.
            names = asked.union(*(self._source(module).strings for module in found))
            loaded = _closure(found, self._loaded)
            ahead = {module for module in loaded - found if self._counts(module, names)}
        return {self._modules[module] for module in found} | set(self._data_of(found))

    def _source(self, module: str) -> _Source:
        if module not in self._sources:
            self._sources[module] = _read(self._modules[module], module)
        return self._sources[module]

    def _class(self, word: str) -> set[str]:
        """The files of a class that a config names, in full or by its own name alone."""
        package, dot, _ = word.partition(".")
        if dot:
            return self._homes(word) if package in PACKAGES else set()
        return set().union(*(self._homes(f"{face}.{word}") for face in PACKAGES if word in self._source(face).bound))

    def _homes(self, name: str) -> set[str]:
        """The modules that a dotted name leads to, through as many faces as it takes; none for other projects'."""
        parts = name.split(".")
        for end in range(len(parts), 0, -1):
            module, rest = ".".join(parts[:end]), parts[end:]
            if module in self._modules:
                break
        else:
            return set()
        meant = self._source(module).bound.get(rest[0], set()) if rest and self._is_face(module) else set()
        further = {".".join([other, *rest[1:]]) for other in meant} - {name}
        return set().union(*(self._homes(other) for other in further)) if further else {module}

    def _is_face(self, module: str) -> bool:
        return self._modules[module].name == "__init__.py"

    def _used(self, module: str) -> set[str]:
        """The modules that one makes use of, itself left aside."""
        source = self._source(module)
        used = {home for name in source.uses for home in self._homes(name)}
        imported = {home for name in source.imports for home in self._homes(name)}
        # A file that imports a face needs what it then takes out of it; a face hands on all that it imports.
        return used | {home for home in imported if self._is_face(module) or not self._is_face(home)}

    def _loaded(self, module: str) -> set[str]:
        """The modules that Python loads when it imports one: all that are named, and the faces around them."""
        names = (module, *self._source(module).imports)
        prefixes = {name[:end] for name in names for end, letter in enumerate(f"{name}.") if letter == "."}
        return prefixes & self._modules.keys()

    def _counts(self, module: str, names: set[str]) -> bool:
        """Whether a module that is loaded and not used can change what happens, where these names are asked for."""
        source = self._source(module)
        families = tuple(name for name in source.registers if name.endswith("/"))
        return source.acts or bool(source.registers & names) or any(name.startswith(families) for name in names)

    def _data_of(self, modules: set[str]) -> Iterator[Path]:
        """Data files that one of the modules names; of those that no module names, all that lie beside one of them."""
        folders = {self._modules[module].parent for module in modules}
        for path in self._data:
            naming = {module for module in self._modules if path.name in self._source(module).strings}
            if naming & modules or (not naming and path.parent in folders):
                yield path


@dataclass(frozen=True)
class _Source:
    """One Python file, as far as it matters to others.

    Attributes:
        imports: dotted names of all that it imports from this project.
        bound: the same by the name that each has in the file; two functions may give one name two meanings.
        uses: dotted names of all that it uses of them; "umd.encoders.*" where a module is handled as a value.
        strings: its string constants, and the last parts of those that are paths.
        registers: names that it gives its builders, as in `@VISION.register("tiny_vit")`.
        acts: whether importing it does more than define: it calls something, or sets what belongs to another file.
    """

    imports: set[str]
    bound: dict[str, set[str]]
    uses: set[str]
    strings: set[str]
    registers: set[str]
    acts: bool


def _closure(start: Iterable[str], further: Callable[[str], set[str]]) -> set[str]:
    reached: set[str] = set()
    ahead = set(start)
    while ahead:
        reached |= ahead
        ahead = set[str]().union(*map(further, ahead)) - reached
    return reached


def _module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _read(path: Path, module: str) -> _Source:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    here = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    bound: dict[str, set[str]] = defaultdict(set)
    imports, uses, strings, registers = (set[str]() for _ in range(4))
    acts = any(_does_more_than_define(node) for node in _run_at_import(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name, meaning, imported in _imported(node, here):
                if imported.partition(".")[0] in PACKAGES:
                    imports.add(imported)
                    bound[name].add(meaning)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings |= {node.value, node.value.rpartition("/")[2]}
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
            if called in ("import_module", "__import__"):
                imports |= {given} if isinstance(given, str) else set()
                uses |= {f"{given}.*"} if isinstance(given, str) else set()
            elif called == "register" and isinstance(given, str):
                registers.add(given)
            elif called == "register":
                acts = True
    uses |= {f"{meaning}{rest}" for name, rest in _chains(tree) for meaning in bound.get(name, ())}
    uses |= {f"{meaning}.*" for meaning in bound.get("*", ())}
    return _Source(imports, dict(bound), uses, strings, registers, acts)


def _imported(node: ast.Import | ast.ImportFrom, here: list[str]) -> Iterator[tuple[str, str, str]]:
    """Of each imported thing the name in the file, the dotted name that it stands for, and the one that is imported."""
    for alias in node.names:
        if isinstance(node, ast.Import):
            first = alias.name.partition(".")[0]
            yield alias.asname or first, alias.name if alias.asname else first, alias.name
        else:
            base = here[: len(here) + 1 - node.level] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            name = whole if alias.name == "*" else f"{whole}.{alias.name}"
            yield alias.asname or alias.name, name, name


def _chains(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Each name in use with the attributes behind it (".modules.VQAClassifier"), ".*" where there are none."""
    within: set[ast.AST] = set()
    for node in ast.walk(tree):  # the outermost attribute comes first
        if isinstance(node, ast.Attribute | ast.Name) and node not in within:
            rest = ""
            inner: ast.AST = node
            while isinstance(inner, ast.Attribute):
                rest, inner = f".{inner.attr}{rest}", inner.value
                within.add(inner)
            if isinstance(inner, ast.Name):
                yield inner.id, rest or ".*"


def _run_at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """All parts of a file but the bodies of functions."""
    ahead: list[ast.AST] = [tree]
    while ahead:
        node = ahead.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            ahead += ast.iter_child_nodes(node)


def _does_more_than_define(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute | ast.Subscript):
        return not isinstance(node.ctx, ast.Load)
    return isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
