"""What is published: what it declares, what it holds, and that it works where there is nothing else."""

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from networks import MODELS, ROOT

import bnfold

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BROUGHT_BY = {"PIL": "pillow", "google": "protobuf", "onnx_ir": "onnx-ir", "distributed": "dask"}
"""Packages that are installed under another name than they are imported by."""
WHEEL, SDIST = f"bnfold-{bnfold.__version__}-py3-none-any.whl", f"bnfold-{bnfold.__version__}.tar.gz"


def imported(path: Path) -> set[str]:
    """The packages that a file imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    return found


def test_every_package_that_is_imported_is_declared():
    """None is there only because another one brings it, nor declared for nothing, but for tools."""
    extras = PROJECT["optional-dependencies"]
    needed = [
        *PROJECT["dependencies"],
        *(name for extra in extras if extra not in {"test", "dev", "docs"} for name in extras[extra]),
    ]
    declared = {re.match(r"[\w-]+", requirement)[0] for requirement in needed}
    files = (ROOT / "bnfold").rglob("*.py")
    packages = set().union(*map(imported, files)) - set(sys.stdlib_module_names) - {"bnfold"}
    assert {BROUGHT_BY.get(package, package) for package in packages} == declared


def test_the_version_stands_in_one_place():
    """pyproject.toml reads it from the package."""
    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A wheel and an sdist, the wheel built from the sdist."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("packages")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True, capture_output=True)
    return folder


def test_what_the_packages_hold(packages):
    """A wheel has the package with its types marker and no model; an sdist has what the tests need besides."""
    names = zipfile.ZipFile(packages / WHEEL).namelist()
    assert {"bnfold/py.typed", "bnfold/reasons.md"} <= set(names)
    assert {name.partition("/")[0] for name in names} == {"bnfold", f"bnfold-{bnfold.__version__}.dist-info"}
    assert [name for name in names if name.endswith((".onnx", ".npz"))] == []
    with tarfile.open(packages / SDIST) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "cli.py", "tests/conftest.py", "docs/how-it-works.md", ".ci/readme"} <= inside
    assert {f"models/{path.name}" for path in MODELS.iterdir() if path.suffix == ".onnx"} <= inside


@pytest.mark.parametrize("package", [WHEEL, SDIST])
def test_an_installed_package_folds(packages, package, tmp_path):
    """In an empty environment, where neither this folder nor anything that is installed here can be seen."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    programs = tmp_path / "environment/bin"

    def run(*command: object) -> str:
        done = subprocess.run(
            list(map(str, command)), cwd=tmp_path, env=clean, capture_output=True, text=True, check=True
        )
        return done.stdout

    run(sys.executable, "-m", "venv", programs.parent)
    run(programs / "pip", "install", "--quiet", packages / package)
    assert bnfold.__version__ in run(programs / "bnfold", "--version")
    assert "What you can do:" in run(programs / "bnfold", "explain", "BRANCHES")
    report = run(programs / "bnfold", "optimize", MODELS / "digits_resnet.onnx", "-o", "folded.onnx")
    assert "8 of 8 BatchNormalizations folded" in report
    assert "verified equivalent" in report
    assert (tmp_path / "folded.onnx").is_file()
