"""Who may import whom. The table is the architecture; a new arrow is a decision, and is made here."""

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bnfold"

MAY_IMPORT = {
    # plain values
    "affine": set(),
    "blas": set(),
    "confined": {"blas", "limits"},
    "escape": set(),
    "explanations": {"reasons"},
    "limits": set(),
    "malloc": set(),
    "memo": set(),
    "page": {"escape", "version"},
    "reasons": {"escape"},
    "schemas": {"page"},
    "rounding": {"affine"},
    "telemetry": set(),
    "version": set(),
    # reading and writing
    "model_io": {"escape"},
    "data": {"model_io"},
    # a model, and what its nodes mean
    "graph": {"affine", "confined", "limits", "memo", "model_io", "reasons", "rounding"},
    "batchnorm": {"affine", "graph", "reasons"},
    # what operators can do, and when it is done
    "ops": {"affine", "batchnorm", "graph", "reasons", "rounding"},
    "folding": {"affine", "batchnorm", "graph", "limits", "model_io", "ops", "page", "reasons", "rounding"},
    # what measures and what checks knows nothing of folding
    "calibration": {
        "affine",
        "batchnorm",
        "confined",
        "data",
        "escape",
        "graph",
        "limits",
        "malloc",
        "model_io",
        "reasons",
        "rounding",
        "page",
        "telemetry",
    },
    "verification": {
        "affine",
        "blas",
        "confined",
        "data",
        "escape",
        "graph",
        "limits",
        "malloc",
        "memo",
        "model_io",
        "reasons",
        "page",
        "telemetry",
    },
    # folds again, and verifies again, what a record says
    "certificate": {
        "affine",
        "escape",
        "folding",
        "graph",
        "limits",
        "model_io",
        "ops",
        "page",
        "verification",
        "version",
    },
    # the verbs, and the command line, which knows nothing but the verbs and their reports
    "optimization": {
        "calibration",
        "certificate",
        "escape",
        "folding",
        "graph",
        "limits",
        "model_io",
        "reasons",
        "page",
        "verification",
    },
    # a result as a page with drawings; only the command line and Python's surface ask for it
    "report": {
        "affine",
        "calibration",
        "escape",
        "folding",
        "graph",
        "model_io",
        "ops",
        "optimization",
        "page",
        "reasons",
        "verification",
        "version",
    },
    "passes": {""},
    "__main__": {"commands"},
    "commands": {
        "",
        "calibration.picture",
        "confined",
        "escape",
        "explanations",
        "limits",
        "malloc",
        "model_io",
        "optimization",
        "page",
        "reasons",
        "report",
        "schemas",
        "verification.told",
    },
    "": {
        "calibration",
        "certificate",
        "folding",
        "model_io",
        "optimization",
        "reasons",
        "report",
        "verification",
        "version",
    },
}
"""For each part of the package (the empty name is `bnfold` itself) the modules that it may import, and all in them."""


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def module_of(path: Path) -> str:
    """The name of a file's module, without the package's; a package is the module of its `__init__`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


def imports(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, without the package's name; also those for types only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports by a relative name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from dict.fromkeys(module_in(name) for name in names if name.partition(".")[0] == PACKAGE.name)


def module_in(name: str) -> str:
    """The module of the package that an imported name is, or that it stands in."""
    module = name.partition(".")[2]
    while not (PACKAGE / module.replace(".", "/")).is_dir() and not file_of(module).is_file():
        module = module.rpartition(".")[0]
    return module


def file_of(module: str) -> Path:
    return PACKAGE / f"{module.replace('.', '/')}.py"


def is_inside(module: str, parts: set[str]) -> bool:
    return any(module == part or (part and module.startswith(f"{part}.")) for part in parts)


def test_the_table_is_complete():
    """Every part of the package has a row, and no row is of a part that is gone."""
    parts = {part_of(path) for path in PACKAGE.rglob("*.py")}
    assert parts == set(MAY_IMPORT)


@pytest.mark.parametrize("part", [part or "__init__" for part in MAY_IMPORT])
def test_imports(part):
    """A part imports itself and what its row allows."""
    part = part.removeprefix("__init__")
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {module}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if part_of(path) == part
        for module in imports(path)
        if not is_inside(module, MAY_IMPORT[part] | {part})
    ]
    assert wrong == []


def test_the_table_has_no_circle():
    """No part imports what imports it, however far around."""
    rows = {part: {name.partition(".")[0] for name in row} for part, row in MAY_IMPORT.items()}
    TopologicalSorter(rows).prepare()


def test_no_modules_import_each_other():
    """No circle of modules, however far around: imports for types only count, and those inside functions."""
    arrows = {module_of(path): set(imports(path)) - {module_of(path)} for path in PACKAGE.rglob("*.py")}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail(" is imported by ".join(f"bnfold.{module}".rstrip(".") for module in error.args[1]))


def test_no_module_imports_its_own_package():
    """What a package offers is for others; its modules take from each other, or a circle could hide behind it."""
    wrong = [
        f"{module_of(path)} imports {imported}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for imported in imports(path)
        if imported and path.name != "__init__.py" and is_inside(module_of(path), {imported})
    ]
    assert wrong == []


FLOORS = {
    "calibration": [{"error", "images"}, {"statistics"}, {"running"}, {"measuring"}],
    "verification": [{"evidence", "float64", "replay", "result"}, {"regions", "running"}],
}
"""The rooms of parts that have floors, lowest first; what is not named stands on the top floor."""


@pytest.mark.parametrize("part", FLOORS)
def test_no_room_looks_up(part):
    """What is not on the top floor knows itself and the floors below, but nothing beside it or above."""
    floors = FLOORS[part]
    known = {room: {room}.union(*floors[:level]) for level, floor in enumerate(floors) for room in floor}
    wrong = [
        f"{module} imports {imported}"
        for module, imported in inside(part)
        if room_of(imported) not in known.get(room_of(module), {room_of(imported)})
    ]
    assert wrong == []


def inside(part: str) -> Iterator[tuple[str, str]]:
    """Which modules of a part import which others of it."""
    for path in sorted((PACKAGE / part).rglob("*.py")):
        yield from ((module_of(path), name) for name in imports(path) if is_inside(name, {part}) and name != part)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


TESTS = Path(__file__).parent
NO_PACKAGE = {"cases", "journeys", "mutants", "random_graphs", "wrong_folds"}
"""Folders of tests/ about bnfold as a whole, and their data."""


def mirrored() -> Iterator[tuple[str, str]]:
    """The files in folders of tests/ that are about a package: the package, and the file's name."""
    for path in TESTS.rglob("*.py"):
        folder = path.parent.relative_to(TESTS)
        if folder.parts and folder.parts[0] not in NO_PACKAGE:
            yield folder.as_posix(), path.name


def test_tests_mirror_the_package():
    """Every package has its folder of tests, under the same name, and none is of a package that is gone."""
    packages = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")} - {"."}
    assert {folder for folder, name in mirrored() if name.startswith("test_")} == packages
    assert {path.name for path in TESTS.iterdir() if path.name in NO_PACKAGE} == NO_PACKAGE


def test_a_folder_of_tests_has_one_helper():
    """What its tests share is in one place."""
    helpers = Counter(folder for folder, name in mirrored() if not name.startswith("test_") and name != "conftest.py")
    assert [folder for folder, count in helpers.items() if count > 1] == []


def test_no_name_hides_a_module():
    """What a package offers is named like none of its modules, so that both can be had by an import."""
    for package in (path.parent for path in PACKAGE.rglob("__init__.py")):
        modules = {path.stem for path in package.iterdir()}
        name = ".".join(package.relative_to(PACKAGE.parent).parts)
        assert modules & set(getattr(import_module(name), "__all__", ())) == set()


def test_the_test_sees_imports(tmp_path):
    """It finds them in every form and depth."""
    file = tmp_path / "module.py"
    file.write_text(
        "import onnx\nimport bnfold.ops\ndef f():\n    from bnfold.ops.rule import x, z\nfrom bnfold import affine, y\n"
        "from bnfold.ops import rule, RULES"
    )
    assert list(imports(file)) == ["ops", "affine", "", "ops.rule", "ops", "ops.rule"]
