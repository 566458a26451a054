"""The action, and the recipes of docs/ci.md, as far as they run without the server that they are for."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from networks import MODELS, ROOT

PAGE = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
CHECKED = "bnfold check models/*.onnx --also junit=bnfold.xml"


def recipe(heading: str) -> str:
    """The first block below a heading."""
    return re.search(rf"^## {heading}\n.*?^```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]


def act(folder: Path, models: str, options: str = "") -> subprocess.CompletedProcess[str]:
    """Does what the action does once bnfold is installed, as GitHub would call it."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RUNNER_TEMP": str(folder),
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        "GITHUB_OUTPUT": str(folder / "output"),
        "MODELS": models,
        "OPTIONS": options,
    }
    command = [sys.executable, str(ROOT / "action.py")]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path):
    """Two models, one below a folder with a blank."""
    (tmp_path / "some models/deep").mkdir(parents=True)
    shutil.copy(MODELS / "digits_resnet.onnx", tmp_path / "some models/deep/a b.onnx")
    shutil.copy(MODELS / "digits_mlp.train.onnx", tmp_path / "-train.onnx")
    (tmp_path / "summary").write_text("what other steps wrote\n")
    return tmp_path


def test_the_action_tells_everywhere(folder):
    """In the log with annotations, in the summary behind what stands there, and as outputs."""
    done = act(folder, "some models/**/*.onnx\n\n  -*.onnx  \n")
    assert (done.returncode, done.stderr) == (1, "")
    assert "2 models checked: 2 with findings" in done.stdout
    assert done.stdout.count("8 of 8 BatchNormalizations would fold") == 1
    assert "\n::error file=some models/deep/a b.onnx,title=bnfold%3A foldable::" in done.stdout
    assert "\n::error file=-train.onnx,title=bnfold%3A training::" in done.stdout
    summary = (folder / "summary").read_text(encoding="utf-8")
    assert summary.startswith("what other steps wrote\n**")
    assert "| BatchNormalization | into Conv |" in summary
    outputs = dict(line.split("=", 1) for line in (folder / "output").read_text(encoding="utf-8").splitlines())
    report = json.loads(Path(outputs.pop("report")).read_text(encoding="utf-8"))
    assert outputs == {"models": "2", "folded": "8", "reduced": "0", "kept": "3"}
    assert [model["model"] for model in report["models"]] == ["some models/deep/a b.onnx", "-train.onnx"]


def test_the_action_takes_options(folder):
    """Quoted as in a shell; what is allowed passes."""
    done = act(folder, "*.onnx", "--allow 'TRAINING_MODE' --allow '/a b/*'")
    assert done.returncode == 0, done.stdout + done.stderr
    assert act(folder, "*.onnx", "--allow '").returncode == 2
    assert act(folder, "*.onnx", "--no-such-option").returncode == 2


@pytest.mark.parametrize("models", ["", "*.onnx\nnothing/*.onnx", "some models", "a\x1b::error::%0A"])
def test_the_action_fails_where_nothing_matches(models, folder):
    """Also where other patterns match, and it says which one."""
    done = act(folder, models)
    assert done.returncode == 2
    assert done.stdout.startswith("::error title=bnfold::no model matches '")
    assert done.stdout.count("\n") == 1
    assert "%0A" not in done.stdout.replace("%250A", "")


def test_the_action_is_whole():
    """Every output is one of the script's, and every input reaches a step."""
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    steps = yaml.safe_dump(action["runs"]["steps"])
    assert all(f"inputs.{name} " in steps for name in action["inputs"])
    script = (ROOT / "action.py").read_text(encoding="utf-8")
    assert all(f'"{name}"' in script for name in action["outputs"])
    assert "action.py" in steps
    assert "${{ inputs" not in "".join(step.get("run", "") for step in action["runs"]["steps"])


def shell(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Runs a script with a `bnfold` on the PATH that is this one, and a `pip` that has nothing to do."""
    programs = folder / "programs"
    programs.mkdir()
    for name, command in (("bnfold", [sys.executable, str(ROOT / "cli.py")]), ("pip", ["true"])):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-ec", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("server", ["GitLab", "Jenkins"])
def test_servers(server, tmp_path):
    """The lines that they run fail for a model that could be smaller, and leave the tests that they show."""
    text = recipe(server)
    lines = re.findall(r"sh '(.*)'", text) if server == "Jenkins" else yaml.safe_load(text)["bnfold"]["script"]
    assert lines[-1] == CHECKED
    (tmp_path / "models").mkdir()
    shutil.copy(MODELS / "digits_resnet.onnx", tmp_path / "models")
    assert shell(tmp_path, "\n".join(lines)).returncode == 1
    assert 'failures="8"' in (tmp_path / "bnfold.xml").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make(tmp_path):
    """Each export is folded, and nothing is done twice."""
    (tmp_path / "export").mkdir()
    (tmp_path / "Makefile").write_text(recipe("make"))
    shutil.copy(MODELS / "digits_mlp.onnx", tmp_path / "export/net.onnx")
    done = shell(tmp_path, "make && make --question")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "folded/net.onnx").is_file()


def test_dvc(tmp_path):
    """Its command makes what the stage says that it makes, of what it says that it needs."""
    stage = yaml.safe_load(recipe("DVC"))["stages"]["fold"]
    (needed,) = stage["deps"]
    shutil.copy(MODELS / "digits_mlp.onnx", tmp_path / needed)
    assert shell(tmp_path, stage["cmd"]).returncode == 0
    assert all((tmp_path / name).is_file() for name in stage["outs"])


def test_pre_commit():
    """The hook of the recipe is there, and takes the files that pre-commit gives it."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    (repository,) = yaml.safe_load(recipe("pre-commit"))
    assert repository["hooks"] == [{"id": hook["id"]}]
    assert hook["entry"] == "bnfold check"
    assert re.search(hook["files"], "models/a b.onnx")
