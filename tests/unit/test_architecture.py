"""The house rules that no linter knows, and for each of them a snippet that breaks it and is found."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import pytest_infra

ROOT = Path(pytest_infra.__file__).parent

# Who may import whom: a part may import itself and every part of a line before its own.
LAYERS = (
    {"version"},
    {"core"},
    {"net", "container", "cgroup", "vm", "dpdk", "gpu"},
    {"packet"},
    {"checks"},
    {"faults"},
    {"services"},
    {"lab"},
    {"session"},
    {"reporting", "testinfra", "doctor"},
    {"fixtures"},
    {"plugin", "cli"},
    {"__main__"},
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
MAY_IMPORT_PYTEST = {"plugin", "fixtures", "testinfra"}
LONGEST_MODULE, LONGEST_FUNCTION = 400, 40

MUTATORS = {
    *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "push"),
    *("remove", "reverse", "setdefault", "sort", "update"),
}
MUTABLE_TYPES = {
    *(
        "Condition",
        "ContextVar",
        "Counter",
        "Event",
        "Lock",
        "OrderedDict",
        "Queue",
        "RLock",
        "Semaphore",
        "SimpleQueue",
    ),
    *("WeakKeyDictionary", "WeakSet", "WeakValueDictionary", "bytearray", "count", "cycle", "defaultdict", "deque"),
    *("dict", "iter", "list", "local", "set"),
}


@dataclass(frozen=True)
class Module:
    """A module of the package: ``net/port.py`` and its source."""

    path: str
    source: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def name(self) -> str:
        return "pytest_infra." + self.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")

    @property
    def part(self) -> str:
        return self.path.removesuffix(".py").split("/")[0]

    def absolute(self, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        """What is imported, as absolute names: ``pytest_infra.core.wait``."""
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            package = ("pytest_infra/" + self.path).split("/")[: -node.level]
            start = ".".join([*package, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def at_import_time(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when the module is imported: not those of functions and ``if TYPE_CHECKING``."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            continue
        for inner in ("body", "orelse", "finalbody"):
            yield from at_import_time(getattr(statement, inner, []))
        for handler in getattr(statement, "handlers", []):
            yield from at_import_time(handler.body)


def wrong_direction(module: Module) -> Iterator[str]:
    if module.path == "__init__.py":  # the public names, from everywhere
        return
    if module.part not in RANK:
        yield f"{module.path}: {module.part} has no place in LAYERS"
        return
    for node in imports(module.tree):
        for name in module.absolute(node):
            top, _, rest = name.partition(".")
            part = rest.split(".")[0]
            if top != "pytest_infra" or part == module.part:
                continue
            if RANK.get(part, len(LAYERS)) >= RANK[module.part]:
                yield f"{module.path}:{node.lineno} imports {name}, but {module.part} stands before or beside it"


def pytest_imported(module: Module) -> Iterator[str]:
    for node in imports(module.tree):
        for name in module.absolute(node):
            if name.split(".")[0] in {"pytest", "_pytest"} and module.part not in MAY_IMPORT_PYTEST:
                yield f"{module.path}:{node.lineno} imports {name}; only {sorted(MAY_IMPORT_PYTEST)} may"


def third_party_at_import_time(module: Module) -> Iterator[str]:
    known = {"pytest_infra", "pytest", *sys.stdlib_module_names}
    for node in at_import_time(module.tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in module.absolute(node):
                if name.split(".")[0] not in known:
                    yield f"{module.path}:{node.lineno} imports {name} at import time; import it at its first use"


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            call = statement.value.func if isinstance(statement.value, ast.Call) else None
            if call is not None and ast.unparse(call).split(".")[-1] in {"TypeVar", "ParamSpec"}:
                continue
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [node for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
            yield from (node.id for node in names if isinstance(node.ctx, ast.Store))
        elif isinstance(statement, ast.If | ast.Try):
            yield from _defined([*statement.body, *statement.orelse])


def _imported(module: Module) -> Iterator[str]:
    """The names that the module binds by importing them; one that is in ``__all__`` is handed on, on purpose."""
    for node in at_import_time(module.tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)


def declared_names(module: Module) -> list[str] | None:
    for statement in module.tree.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(statement.value)
            return names
        if isinstance(statement, ast.AnnAssign) and statement.value and ast.unparse(statement.target) == "__all__":
            return list(ast.literal_eval(statement.value))
    return None


def ruff_order(name: str) -> tuple[int, str]:
    """The order of ruff's rule RUF022: constants, classes, the rest."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name


def wrong_all(module: Module) -> Iterator[str]:
    declared = declared_names(module)
    if module.path.endswith("__init__.py"):
        if declared is None and len(module.tree.body) > 1:
            yield f"{module.path} has no __all__"
        declared = declared or []
    elif declared is None:
        yield f"{module.path} has no __all__"
        return
    else:
        found = {name for name in _defined(module.tree.body) if not name.startswith("_") or name == "__version__"}
        hooks = {name for name in found if name.startswith("pytest_")} if module.part == "plugin" else set()
        if missing := found - hooks - set(declared):
            yield f"{module.path}: public, but not in __all__: {sorted(missing)}"
        if unknown := set(declared) - found - set(_imported(module)):
            yield f"{module.path}: in __all__, but neither defined nor imported: {sorted(unknown)}"
    if declared != sorted(set(declared), key=ruff_order):
        yield f"{module.path}: __all__ is not sorted: constants, then classes, then the rest"


def mutable_state(module: Module) -> Iterator[str]:
    tree = module.tree
    holders = set()
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            value = statement.value
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
            where = f"{module.path}:{statement.lineno}"
            if isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] in MUTABLE_TYPES:
                yield f"{where} makes a {ast.unparse(value.func)} at module level"
            if isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
                holders |= names
                if any(name != name.upper() and name != "__all__" for name in names):
                    yield f"{where}: {', '.join(names)} is mutable and not written as a constant"
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield f"{module.path}:{node.lineno} has a global statement"
        elif changed := set(_changed(node)) & holders:
            yield f"{module.path}:{node.lineno} changes {', '.join(changed)}, which lives at module level"


def _changed(node: ast.AST) -> Iterator[str]:
    """The names whose object this node changes in place."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        yield ast.unparse(node.value)
    elif isinstance(node, ast.AugAssign):
        yield ast.unparse(node.target)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
        yield ast.unparse(node.func.value)


def too_long(module: Module) -> Iterator[str]:
    lines = len(module.source.splitlines())
    if lines > LONGEST_MODULE:
        yield f"{module.path} has {lines} lines; {LONGEST_MODULE} are allowed"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            first = node.body[0]
            has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            docstring = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
            length = node.end_lineno - node.lineno + 1 - docstring
            if length > LONGEST_FUNCTION:
                yield f"{module.path}:{node.lineno} {node.name} has {length} lines; {LONGEST_FUNCTION} are allowed"


def sleeps(module: Module) -> Iterator[str]:
    if module.path == "core/wait.py":
        return
    for node in ast.walk(module.tree):
        by_name = isinstance(node, ast.ImportFrom) and any(alias.name == "sleep" for alias in node.names)
        if by_name or (isinstance(node, ast.Attribute) and node.attr == "sleep"):
            yield f"{module.path}:{node.lineno} sleeps; wait for a condition with core.wait.until"


def shells(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}:
                yield f"{module.path}:{node.lineno} calls {called}, which runs a shell"
            for keyword in node.keywords:
                if keyword.arg == "shell" and ast.unparse(keyword.value) != "False":
                    yield f"{module.path}:{node.lineno} passes shell={ast.unparse(keyword.value)}"


Rule = Callable[[Module], Iterator[str]]
RULES: tuple[Rule, ...] = (
    wrong_direction,
    pytest_imported,
    third_party_at_import_time,
    wrong_all,
    mutable_state,
    too_long,
    sleeps,
    shells,
)
MODULES = [Module(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in sorted(ROOT.rglob("*.py"))]


def named(value: object) -> str:
    return value.path if isinstance(value, Module) else getattr(value, "__name__", "")


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    faults = [fault for module in MODULES for fault in rule(module)]
    assert not faults, "\n".join(["", *faults])


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_every_name_in_all_can_be_had(module: Module) -> None:
    loaded = importlib.import_module(module.name.removesuffix(".__init__"))
    assert [name for name in declared_names(module) or [] if not hasattr(loaded, name)] == []


def twin(rule: Rule, path: str, source: str, words: str) -> object:
    return pytest.param(rule, Module(path, source), words, id=f"{rule.__name__}-{source[:30]!r}")


LONG_FUNCTION = "def f():\n" + "    f()\n" * 40


@pytest.mark.parametrize(
    ("rule", "module", "words"),
    [
        twin(wrong_direction, "core/units.py", "from pytest_infra.net import port", "imports pytest_infra.net.port"),
        twin(wrong_direction, "core/units.py", "from ..net.port import Port", "imports pytest_infra.net.port.Port"),
        twin(wrong_direction, "core/units.py", "from .. import net", "imports pytest_infra.net"),
        twin(wrong_direction, "core/units.py", "def f():\n    import pytest_infra.lab", "imports pytest_infra.lab"),
        twin(wrong_direction, "net/port.py", "from ..container import docker", "net stands before or beside"),
        twin(wrong_direction, "lab/base.py", "from ..session import Infra", "lab stands before or beside"),
        twin(wrong_direction, "session.py", "from .fixtures import lab", "session stands before or beside"),
        twin(wrong_direction, "checks/reach.py", "from ... import x\nfrom ..lab import Lab", "checks stands before"),
        twin(wrong_direction, "core/a.py", "from .. import Infra", "imports pytest_infra.Infra"),
        twin(wrong_direction, "core/a.py", "import pytest_infra", "imports pytest_infra"),
        twin(wrong_direction, "helpers.py", "", "no place in LAYERS"),
        twin(pytest_imported, "lab/lab.py", "def f():\n    import pytest", "imports pytest"),
        twin(pytest_imported, "core/a.py", "from _pytest.config import Config", "imports _pytest.config.Config"),
        twin(third_party_at_import_time, "core/a.py", "import pyroute2", "imports pyroute2"),
        twin(third_party_at_import_time, "net/a.py", "class A:\n    from scapy import all", "imports scapy.all"),
        twin(third_party_at_import_time, "net/a.py", "try:\n    import ovs\nexcept ImportError: pass", "imports ovs"),
        twin(wrong_all, "core/a.py", "def f(): pass", "has no __all__"),
        twin(wrong_all, "core/a.py", "__all__ = []\ndef f(): pass", "not in __all__: ['f']"),
        twin(wrong_all, "core/a.py", "__all__ = []\nif x:\n    F = 1", "not in __all__: ['F']"),
        twin(wrong_all, "core/a.py", "__all__ = ['f']", "neither defined nor imported: ['f']"),
        twin(wrong_all, "core/a.py", "__all__ = ['f', 'F']\nf = F = 1", "not sorted"),
        twin(wrong_all, "core/a.py", "__all__ = []\ndef pytest_configure(): pass", "not in __all__: ['pytest_conf"),
        twin(wrong_all, "core/__init__.py", "'''Doc.'''\nfrom .a import b", "has no __all__"),
        twin(mutable_state, "core/a.py", "seen = []", "not written as a constant"),
        twin(mutable_state, "core/a.py", "SEEN = {}\ndef f():\n    SEEN['a'] = 1", "changes SEEN"),
        twin(mutable_state, "core/a.py", "SEEN = []\ndef f():\n    SEEN.append(1)", "changes SEEN"),
        twin(mutable_state, "core/a.py", "SEEN = {1}\ndef f():\n    SEEN.add(1)", "changes SEEN"),
        twin(mutable_state, "core/a.py", "NUMBERS = itertools.count()", "makes a itertools.count"),
        twin(mutable_state, "core/a.py", "x = 1\ndef f():\n    global x\n    x = 2", "global statement"),
        twin(too_long, "core/a.py", "\n" * 401, "401 lines"),
        twin(too_long, "core/a.py", LONG_FUNCTION, "f has 41 lines"),
        twin(sleeps, "core/a.py", "import time\ntime.sleep(1)", "a.py:2 sleeps"),
        twin(sleeps, "net/wait.py", "from time import sleep", "sleeps"),
        twin(shells, "core/a.py", "subprocess.run('ls', shell=True)", "passes shell=True"),
        twin(shells, "core/a.py", "os.system('ls')", "calls os.system"),
    ],
)
def test_a_snippet_that_breaks_the_rule_is_found(rule: Rule, module: Module, words: str) -> None:
    faults = list(rule(module))
    assert len(faults) == 1, faults
    assert words in faults[0]


GOOD = '''"""A module."""
import os
from typing import TYPE_CHECKING, TypeVar
from ..core.wait import until
from ..version import __version__
if TYPE_CHECKING:
    import pyroute2
__all__ = ["LIMIT", "Port", "open_port"]
LIMIT: int = 1
_UNITS = {"s": 1}
T = TypeVar("T")
class Port:
    seen = until(_UNITS.get)
    def add(self):
        self.ports.append(_UNITS["s"])
def open_port():
    """Doc.
''' + "\n" * 50 + '''"""
    import pyroute2
    subprocess.run(["ls"], shell=False)
'''  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_a_module_that_keeps_all_rules_is_let_through(rule: Rule) -> None:
    assert list(rule(Module("net/port.py", GOOD))) == []


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (wrong_direction, "__init__.py", "from .plugin import x"),
        (pytest_imported, "fixtures.py", "import pytest"),
        (sleeps, "core/wait.py", "import time\ntime.sleep(1)"),
        (wrong_all, "core/__init__.py", "'''Doc.'''"),
        (wrong_all, "plugin/a.py", "from ..fixtures import lab\n__all__ = ['lab']\ndef pytest_configure(): pass"),
    ],
)
def test_what_the_rules_allow(rule: Rule, path: str, source: str) -> None:
    assert list(rule(Module(path, source))) == []
