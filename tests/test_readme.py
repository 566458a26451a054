"""The code blocks of README.md and docs/ do what they show.

`python tests/test_readme.py` writes the output of the commands anew.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ .*\n(?:> .*\n)*", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
MEASURED = re.compile(r"\b\d(\.\d+)?e-\d+\b")  # rounding, which differs from one processor to the next


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
    shutil.copytree(ROOT / "models", tmp_path / "models")
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


def test_ci_runs_the_test_command_of_the_readme():
    """And no other."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = next(block for language, block in BLOCK.findall(readme) if language == "sh" and "pytest" in block)
    assert command.strip() in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def rewrite(page: Path) -> None:
    def fresh(match: re.Match[str]) -> str:
        if match[1] != "console":
            return match[0]
        with tempfile.TemporaryDirectory() as name:
            shutil.copytree(ROOT / "models", Path(name) / "models")
            return f"```console\n{replayed(Path(name), match[2])}```"

    page.write_text(BLOCK.sub(fresh, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    for page in PAGES:
        rewrite(page)
