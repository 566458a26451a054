"""The pass of docs/olive.md, with the real package; where Olive is not installed, there is nothing to test."""

import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from networks import ROOT, copy_to
from test_readme import BLOCK, MEASURED

import bnfold

pytest.importorskip("olive")

BLOCKS = dict(BLOCK.findall((ROOT / "docs/olive.md").read_text(encoding="utf-8")))
PASS = '{"type": "FoldBatchNorm"}'


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs in the folder, and Olive tells nobody about it."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "CI": "1"}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )


def workflow(folder: Path, model: str, fold: str = PASS) -> str:
    """What the page's script prints for another model, and with other options."""
    script = BLOCKS["py"].replace(PASS, fold).replace("models/digits_resnet.onnx", model)
    assert fold in script
    assert model in script
    (folder / "fold_pass.py").write_text(script)
    return run(folder, "fold_pass.py").stdout


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}


def folded(folder: Path) -> list[Path]:
    """What came out of the first pass."""
    models = (folder / ".olive-cache").rglob("*.onnx")
    return [path for path in models if not operators(path) & {"DynamicQuantizeLinear", "BatchNormalization"}]


@pytest.fixture
def folder(tmp_path):
    """An empty folder with the models beside."""
    copy_to(tmp_path)
    return tmp_path


def test_the_block_is_short():
    assert len(BLOCKS["py"].splitlines()) <= 30


def test_it_prints_what_the_page_shows(folder):
    """It folds, and Olive quantises what was folded."""
    _, *shown, _ = MEASURED.sub("…", BLOCKS["text"]).splitlines()  # the first line and the last have paths in them
    printed = MEASURED.sub("…", workflow(folder, "models/digits_resnet.onnx"))
    assert "\n".join(["8 of 8 BatchNormalizations folded, verified", *shown, "written to"]) in printed
    assert "BatchNormalization" not in operators(folder / "quantised/model.onnx")
    assert "MatMulInteger" in operators(folder / "quantised/model.onnx")
    (path,) = folded(folder)
    assert bnfold.verify(folder / "models/digits_resnet.onnx", path)


def test_files_of_weights_go_with_the_model(folder):
    (folder / "outside").mkdir()
    model = onnx.load(folder / "models/digits_resnet.onnx")
    onnx.save(model, folder / "outside/a.onnx", save_as_external_data=True, location="a.data", size_threshold=0)
    printed = workflow(folder, "outside/a.onnx")
    assert "8 of 8 BatchNormalizations folded, verified" in printed
    assert "MatMulInteger" in operators(folder / "quantised/model.onnx"), printed
    (path,) = folded(folder)
    assert bnfold.verify(folder / "models/digits_resnet.onnx", path)


def test_a_refusal_ends_the_run(folder):
    """And Olive writes no model."""
    fold = '{"type": "FoldBatchNorm", "options": {"keep": ["*"], "require_none": True}}'
    printed = workflow(folder, "models/digits_preact.onnx", fold)
    assert re.search(r"^bnfold\S*: .*BatchNormalization", printed, re.MULTILINE), printed
    assert not (folder / "quantised/model.onnx").exists()


def test_the_command_line_finds_the_pass(folder):
    """With a file that lists the passes of the run."""
    (folder / "fold_pass.py").write_text(BLOCKS["py"])
    (folder / "package.json").write_text('{"passes": {"FoldBatchNorm": {"module_path": "fold_pass.FoldBatchNorm"}}}')
    (folder / "run.json").write_text(
        '{"input_model": {"type": "ONNXModel", "model_path": "models/digits_mlp.onnx"},'
        ' "passes": {"fold": {"type": "FoldBatchNorm"}}, "output_dir": "folded"}'
    )
    done = run(folder, "-m", "olive", "run", "--config", "run.json", "--package-config", "package.json")
    assert done.returncode == 0, done.stdout
    assert bnfold.verify(folder / "models/digits_mlp.onnx", folder / "folded/model.onnx")
