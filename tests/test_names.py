"""Names out of a model, in every place and every report: they are told, and do nothing."""

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from bnfold import ModelError, NotVerified, Refusal, check, optimize, verify
from bnfold.commands import program
from bnfold.reasons import Reason

NASTY = (
    "\x1b]0;pwned\x07\x1b[2J\x9b1m",
    "::error file=a.py,line=1::pwned",
    "::add-mask::e",
    "n\n::stop-commands::x\r\n##[error]y",
    "##vso[task.setvariable variable=a]b",
    "# heading\n<!-- ",
    "@org/team see https://example.invalid/x #1",
    "![i](http://x.invalid/i.png) [l](javascript:x)",
    "<img src=x onerror=alert(1)> </td> &lt;",
    "a | b | `c` ~~d~~ $e$ \\",
    "\u202egnp\u2066 \u200bq\ufeff\u3164\u2028r",
    "]]> \"' {0} {value} %s",
    "long" * 5000,
    "long " * 5000,
    "größe→",
)
FILE = os.fsdecode(b"\xff\x1b[2J\n::error::f\xe2\x80\xae @org") + "|<b>.onnx"
INERT = re.compile(r"`[^`]*`|\\.|<br>")  # in Markdown: code, what a backslash escapes, and our own line ends
LIVE = re.compile(r"@\w|\w://|www\.|[<>`\[\]*_#~$]")

Names = Callable[[], str]


def names() -> Names:
    """A function that gives another name each time; all of them are different, and begin with what is nasty."""
    numbers = itertools.count()
    return lambda: f"{NASTY[(number := next(numbers)) % len(NASTY)]}{number}"


def parameters(model: onnx.ModelProto, name: Names, channels: int) -> list[str]:
    made = [name() for _ in range(4)]
    tensors = [numpy_helper.from_array(np.full(channels, 2, np.float32), each) for each in made]
    model.graph.initializer.extend(tensors)
    return made


def nasty_model(name: Names, *, training: bool = False) -> onnx.ModelProto:
    """Conv → BN that folds → Tanh → BN that stays → a function; no name in it is not nasty."""
    model = onnx.ModelProto(ir_version=8, producer_name=name(), domain=name(), doc_string=name())
    domain, function, dim, x, w = (name() for _ in range(5))
    model.opset_import.extend([helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)])
    helper.set_model_props(model, {name(): name()})
    model.graph.name = name()
    model.graph.input.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, [dim, 3, 6, 6]))
    weight = np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, w))
    value = x
    mode = {"training_mode": 1} if training else {}
    for op_type, inputs in (
        ("Conv", [w]),
        ("BatchNormalization", parameters(model, name, 3)),
        ("Tanh", []),
        ("BatchNormalization", parameters(model, name, 3)),
    ):
        attributes = mode if op_type == "BatchNormalization" else {}
        outputs = [name() for _ in range(3 if attributes else 1)]
        model.graph.node.append(helper.make_node(op_type, [value, *inputs], outputs, name(), name(), **attributes))
        value = outputs[0]
    y = name()
    model.graph.node.append(helper.make_node(function, [value], [y], name(), domain=domain))
    inside, outside = name(), name()
    body = [helper.make_node("Abs", [inside], [outside], name())]
    model.functions.append(helper.make_function(domain, function, [inside], [outside], body, model.opset_import[:1]))
    model.graph.output.append(helper.make_tensor_value_info(y, TensorProto.FLOAT, [dim, 3, 6, 6]))
    return model


@pytest.fixture
def bnfold(tmp_path, monkeypatch) -> Callable[..., Result]:
    """Runs a command in a folder with nasty models; what it prints is looked at, every character of it."""
    monkeypatch.chdir(tmp_path)
    onnx.save(nasty_model(names()), FILE)
    onnx.save(nasty_model(names(), training=True), f"training{FILE}")
    np.save(f"data{FILE}.npy", np.random.default_rng(0).normal(size=(64, 3, 6, 6)).astype(np.float32))

    def run(*args: str, code: int | None = 0, form: str = "text") -> Result:
        result = CliRunner().invoke(program, [*args, "--format", form], prog_name="bnfold")
        assert code is None or result.exit_code == code, result.output
        assert result.exit_code != 70, result.output
        for text in (ANNOTATION.sub("", result.stdout) if form == "github" else result.stdout, result.stderr):
            assert_inert(text)
        assert len(result.stderr.splitlines()) <= 1
        if result.stdout.strip():
            PARSERS.get(form, str)(result.stdout)
        return result

    return run


def assert_inert(text: str) -> None:
    """No line does more than show itself."""
    for line in text.split("\n"):
        assert line.isprintable()
        assert not line.lstrip().startswith("::")
        assert not re.search(r"##\w*\[", line)


def assert_plain(markdown: str) -> None:
    """Nothing but the report's own bold lines, lists, quotations and tables."""
    for line in markdown.splitlines():
        inner = re.sub(r"^(\*\*(?=.*\*\*)|> |- )|\*\*(?=$|:)", "", line)
        assert set(line) <= set("| -:") or not LIVE.search(INERT.sub("", inner)), line
        assert len(line) < 50_000
    assert all(len(set(bars)) == 1 for bars in tables_of(markdown))


def assert_page(html: str) -> None:
    """No element but those of the report itself, and each of them is closed."""
    body = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL).partition("<body>")[2]
    tags = set(re.findall(r"<(\w+)[^>]*>", body))
    assert tags <= {"section", "p", "b", "table", "tr", "th", "td", "br"}
    assert "=" not in "".join(re.findall(r"<\w+([^>]*)>", body))


PARSERS = {
    "markdown": assert_plain,
    "html": assert_page,
    "json": json.loads,
    "sarif": json.loads,
    "junit": ET.fromstring,
}
ANNOTATION = re.compile(r"^::(error|warning) file=[^:,\n]*,title=bnfold%3A \w+::", re.MULTILINE)


def tables_of(markdown: str) -> Iterator[list[int]]:
    """The numbers of bars in each line of each table."""
    for is_table, lines in itertools.groupby(markdown.splitlines(), lambda line: line.startswith("|")):
        if is_table:
            yield [INERT.sub("", line).count("|") for line in lines]


FORMS = ("text", "markdown", "json", "html", "github", "junit")


@pytest.mark.parametrize("form", [*FORMS, "sarif"])
@pytest.mark.parametrize("more", [[], ["-v"]], ids=["short", "verbose"])
def test_check(form, more, bnfold):
    """Of a model that is read, and of one that is not there."""
    bnfold("check", FILE, *more, form=form, code=1)
    told = bnfold("check", FILE, f"no{FILE}", *more, form=form, code=2)
    if form == "json":
        entries = json.loads(told.stdout)["models"][0]["entries"]
        nodes = {node.name for node in onnx.load(FILE).graph.node}
        assert {entry["node"] for entry in entries} <= nodes
        assert len(entries) == 2


@pytest.mark.parametrize("form", FORMS)
def test_optimize(form, bnfold):
    """Of a model that is written, and where there is no folder for it."""
    bnfold("optimize", FILE, "-o", f"out{FILE}", "-v", "--certificate", f"record{FILE}", form=form)
    bnfold("optimize", FILE, "-o", f"dir{FILE}/x", form=form, code=2)


@pytest.mark.parametrize("form", FORMS)
def test_verify(form, bnfold):
    """Models that are equivalent, and that are not; with every layer."""
    bnfold("optimize", FILE, "-o", f"out{FILE}", "--no-verify")
    bnfold("verify", FILE, f"out{FILE}", "--layers", form=form)
    wrong = onnx.load(f"out{FILE}")
    scaled = numpy_helper.to_array(wrong.graph.initializer[-1]) * 2
    wrong.graph.initializer[-1].raw_data = scaled.tobytes()
    onnx.save(wrong, f"wrong{FILE}")
    bnfold("verify", FILE, f"wrong{FILE}", "--layers", form=form, code=1)
    bnfold("verify", FILE, f"wrong{FILE}", form=form, code=1)


@pytest.mark.parametrize("form", FORMS)
def test_certificates(form, bnfold):
    """One that holds, and one that does not."""
    bnfold("optimize", FILE, "-o", f"out{FILE}", "--certificate", f"record{FILE}")
    bnfold("verify", "--certificate", f"record{FILE}", "--static", form=form)
    Path(f"record{FILE}").write_text(Path(f"record{FILE}").read_text().replace('"outcome": "kept"', '"outcome": "@x"'))
    bnfold("verify", "--certificate", f"record{FILE}", "--static", form=form, code=1)


@pytest.mark.parametrize("form", FORMS)
def test_calibrate_and_drift(form, bnfold):
    """With warnings, and as a picture."""
    data = ["--data", f"data{FILE}.npy", "-v"]
    if form != "junit":  # a calibration is no test
        bnfold("calibrate", f"training{FILE}", *data, "-o", f"out{FILE}", form=form)
    bnfold("drift", FILE, *data, "--plot", "drift.svg", form=form)
    picture = Path("drift.svg").read_text(encoding="utf-8")
    assert_inert(picture)
    ET.fromstring(picture)


def unreadable(model: onnx.ModelProto, name: str) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Models that cannot be read, each for another reason in which a name stands."""

    def changed(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
        other = onnx.ModelProto.FromString(model.SerializeToString())
        change(other)
        return other

    conv = model.graph.node[0]
    yield "undefined", changed(lambda m: m.graph.node.add(op_type=name, input=[name], output=["a"]))
    yield "twice", changed(lambda m: m.graph.node.append(conv))
    yield "initializers", changed(lambda m: m.graph.initializer.append(m.graph.initializer[0]))
    yield "inputs", changed(lambda m: m.graph.input.append(m.graph.input[0]))
    yield "size", changed(lambda m: m.graph.initializer[0].dims.append(7))
    yield "output", changed(lambda m: m.graph.output.add(name=name))
    yield "function", changed(lambda m: m.functions[0].output.append(name))
    yield "graph", changed(lambda m: m.graph.node[0].attribute.append(helper.make_attribute(name, onnx.GraphProto())))
    yield "data", changed(lambda m: far(m, {"location": name, "offset": name}))
    yield "place", changed(lambda m: far(m, {"location": f"../{name}"}))


def far(model: onnx.ModelProto, entries: dict[str, str]) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


@pytest.mark.parametrize("name", NASTY, ids=range(len(NASTY)))
def test_errors(name, bnfold):
    """A model that cannot be read is told in one inert line, with what is wrong with it."""
    model = nasty_model(names())
    for what, bad in unreadable(model, name):
        onnx.save(bad, FILE)
        for form in FORMS:
            told = bnfold("check", FILE, form=form, code=2)
            assert len(told.stderr) <= 1010, what


@pytest.mark.parametrize("name", NASTY, ids=range(len(NASTY)))
def test_usage_errors(name, bnfold):
    """So is a wrong option, wherever it stands."""
    bnfold("check", f"--{name}", code=2)
    bnfold("optimize", FILE, "--shape", name, code=2)
    bnfold("verify", FILE, FILE, "--no-run", "--map-output", f"{name}=y", code=None)
    bnfold(f"--{name}", "check", code=2)
    bnfold(name, code=2)


@pytest.mark.usefixtures("bnfold")
def test_python():
    """What results and errors say of themselves is a line each."""
    checked = check(FILE)
    folded = optimize(FILE)
    verification = verify(FILE, folded.proto())
    entries = [entry for entry in checked.plan.entries if entry.refusals]
    refusals = [refusal for entry in entries for refusal in entry.refusals]
    assert refusals
    assert verification.regions
    for told in (checked, verification, *entries, *refusals, *verification.regions, *verification.layers):
        assert repr(told).isprintable()  # a Python literal, with commands as they are
        if type(told).__str__ is not object.__str__:
            assert_inert(str(told))
    for refusal in (*refusals, Refusal(Reason.BRANCHES, {"value": NASTY[0], "readers": 2}, NASTY[10])):
        assert "\n" not in str(refusal)
    with pytest.raises(ModelError) as error:
        check(f"no{FILE}")
    assert_inert(str(error.value))
    with pytest.raises(NotVerified) as unverified:
        raise NotVerified(folded)
    assert_inert(str(unverified.value))
