"""The code blocks of README.md and docs/ do what they show.

`python tests/test_readme.py` writes the output of the commands anew.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest
from networks import ROOT, copy_to

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ .*\n(?:> .*\n)*", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
# rounding differs from one processor to the next, and time from one run to the next
MEASURED = re.compile(r"\b\d(\.\d+)?e-\d+\b|\b\d+(\.\d+)? s\b", re.MULTILINE)


def run(folder: Path, script: str) -> str:
    """What a shell prints, standard error included, with a `bnfold` that is this one."""
    launcher = shlex.join([sys.executable, str(ROOT / "cli.py")])
    script = f'bnfold() {{ {launcher} "$@"; }}\n{script}'
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    result = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return result.stdout.decode()


def replayed(folder: Path, block: str) -> str:
    """A console block with the output that its commands have now."""
    commands = COMMAND.findall(block)
    scripts = (re.sub(r"^[$>] ?", "", command, flags=re.MULTILINE) for command in commands)
    return "".join(command + run(folder, script) for command, script in zip(commands, scripts, strict=True))


def blocks(language: str) -> list[object]:
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, (found, block) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
        if found == language
    ]


@pytest.fixture
def folder(tmp_path):
    """An empty folder with the models beside."""
    copy_to(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", blocks("console"))
def test_commands(block, folder):
    """A command prints what the page says it prints."""
    assert MEASURED.sub("…", replayed(folder, block)) == MEASURED.sub("…", block)


@pytest.mark.parametrize("block", blocks("python"))
def test_python(block, folder):
    """Python code runs as it stands."""
    subprocess.run(
        [sys.executable, "-c", block], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=120
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page):
    """A link leads to a file of the project."""
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.fixture
def ci_readme():
    """The script `.ci/readme`."""
    loader = SourceFileLoader("ci_readme", str(ROOT / ".ci" / "readme"))
    script = module_from_spec(spec_from_loader(loader.name, loader))
    loader.exec_module(script)
    return script


def test_ci_runs_what_the_readme_tells_to_run(ci_readme):
    """All of it, and in its order."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = ci_readme.blocks(readme)
    assert found == [block for language, block in BLOCK.findall(readme) if language == "sh"]
    assert any("pytest" in block for block in found)
    assert f'requires-python = ">={ci_readme.SUPPORTED[0]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert ".ci/readme" in (ROOT / ".ci" / "quick").read_text(encoding="utf-8").splitlines()
    assert "./quick" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("wrong", [0, 1])
def test_ci_runs_pythons_side_by_side(ci_readme, tmp_path, capfd, wrong):
    """The output of each is in one piece, one that fails is seen whichever it is, and the first alone does all."""
    pythons = [str(tmp_path / name) for name in ("first", "second")]
    for number, python in enumerate(pythons):
        failing = "exit 3" if number == wrong else "exit 0"
        block = f"echo {number}; echo \\$PYTEST_ADDOPTS; {failing}"
        script = f'[ "$1" = -m ] && {{ mkdir -p "$3/bin"; printf "{block}" > "$3/bin/block"; }}\n'
        Path(python).write_text(f"#!/bin/bash\n{script}")
        Path(python).chmod(0o755)
    (tmp_path / "README.md").write_text("```sh\nbash $VIRTUAL_ENV/bin/block\n```\n")
    assert ci_readme.side_by_side(pythons, tmp_path) == 3
    out = capfd.readouterr().out.splitlines()
    assert [line for line in out if line in {"0", "1", ci_readme.ONCE}] == ["0", "1", ci_readme.ONCE]
    ends = ["all done", "all done"]
    ends[wrong] = "exit status 3"
    assert out[-2:] == [f"--- {python}: {end}" for python, end in zip(pythons, ends, strict=True)]


def test_ci_stops_at_the_first_block_that_fails(ci_readme, tmp_path, capfd):
    """It is in a clone, in an environment without packages, and what one block leaves there the next one finds."""
    blocks = ["echo $VIRTUAL_ENV && touch left", "ls left && ! python -c 'import onnx' && exit 3", "echo not run"]
    (tmp_path / "README.md").write_text("".join(f"```sh\n{block}\n```\n" for block in blocks))
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / "README.md").write_text("not committed")
    assert ci_readme.run(sys.executable, tmp_path) == 3
    assert not (tmp_path / "left").exists()
    assert "\nnot run" not in capfd.readouterr().out


def test_ci_finds_the_pythons_that_are_here(ci_readme):
    """This one at least, and none that does not exist."""
    assert ci_readme.find(".".join(map(str, sys.version_info[:2])))
    assert ci_readme.find("3.999") is None


def rewrite(page: Path) -> None:
    def fresh(match: re.Match[str]) -> str:
        if match[1] != "console":
            return match[0]
        with tempfile.TemporaryDirectory() as name:
            copy_to(Path(name))
            return f"```console\n{replayed(Path(name), match[2])}```"

    page.write_text(BLOCK.sub(fresh, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    for page in PAGES:
        rewrite(page)
