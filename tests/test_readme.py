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
    assert ".ci/readme" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


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
