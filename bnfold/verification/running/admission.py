"""Whether a model is one to compare: valid, and made of what this ONNX Runtime knows. Asked before any work is done."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from bnfold import telemetry
from bnfold.graph.ports import InterfaceError, invalid, mistyped
from bnfold.model_io import Model
from bnfold.model_io.protobuf import encoded
from bnfold.model_io.tensors import STANDARD_DOMAINS, bodies
from bnfold.verification.running.runner import CPU

PROBE = Path(__file__).with_name("probe.py")

# what the oldest ONNX Runtime that this package runs with knows; of anything else it is asked
_SURE_IR = 10
_SURE = {**dict.fromkeys(STANDARD_DOMAINS, 21), "ai.onnx.ml": 3, "com.microsoft": 1}

_SECONDS = 60.0
_WAY_OUT = "; --no-run compares the models without it"


def refuse_invalid(before: Model, *, run: bool) -> None:
    """Refuses a BEFORE with which nothing can be compared.

    Raises:
        InterfaceError: It is not valid.
    """
    if wrong := invalid(before) or ("" if run else mistyped(before)):  # which else ONNX Runtime finds
        raise InterfaceError(f"BEFORE is no valid model: {wrong}")


def admitted(models: Mapping[str, Model], providers: Sequence[str]) -> tuple[str, ...]:
    """The execution providers that sessions really use.

    Args:
        models: The models by what they are called.
        providers: Those that are wanted.

    Raises:
        InterfaceError: This ONNX Runtime does not have a provider, or does not know what a model is made of.
    """
    if tuple(providers) == CPU and all(map(_is_sure, models.values())):
        return CPU
    answer = _answer([_hollow(model) for model in models.values()], providers)
    if answer is None:
        return tuple(providers)  # it does not start, for some reason; running the models will tell
    if lacking := [name for name in providers if name not in answer["available"]]:
        raise InterfaceError(
            f"ONNX Runtime has no execution provider {lacking[0]!r} here; it has {', '.join(answer['available'])}"
        )
    for (role, model), tried in zip(models.items(), answer["models"], strict=True):
        if error := tried.get("error"):
            raise InterfaceError(
                f"{role}: this ONNX Runtime takes no model with {_versions(model)}: {_core(error)}{_WAY_OUT}"
            )
        if lacking := [name for name in providers if name not in tried["providers"]]:
            raise InterfaceError(f"ONNX Runtime cannot use {lacking[0]} here, only {', '.join(tried['providers'])}")
        if answer["domains"] and (foreign := sorted(_domains(model) - set(answer["domains"]))):
            raise InterfaceError(f"{role}: this ONNX Runtime has no operators of domain {foreign[0]!r}{_WAY_OUT}")
    used: list[str] = answer["models"][0]["providers"]
    return tuple(used)


def _is_sure(model: Model) -> bool:
    versions = {entry.domain: entry.version for entry in model.proto.opset_import}
    is_old = all(version <= _SURE.get(domain, version) for domain, version in versions.items())
    return model.proto.ir_version <= _SURE_IR and is_old and _domains(model) <= set(_SURE)


def _domains(model: Model) -> set[str]:
    """Those of the operators for which the model brings no function of its own."""
    own = {(function.domain, function.name) for function in model.proto.functions}
    nodes = (node for part in (model.proto.graph, *model.proto.functions) for node in _nodes(part.node))
    return {node.domain for node in nodes if (node.domain, node.op_type) not in own} - set(STANDARD_DOMAINS)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from _nodes(body.node)


def _hollow(model: Model) -> bytes:
    """A model of the same versions that does nothing."""
    value = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [1])
    ports = [onnx.helper.make_value_info(name, value) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "hollow", ports[:1], ports[1:])
    hollow = onnx.ModelProto(ir_version=model.proto.ir_version, opset_import=model.proto.opset_import, graph=graph)
    return encoded(hollow)


def _versions(model: Model) -> str:
    opsets = (f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.proto.opset_import)
    return f"IR version {model.proto.ir_version} and opset {', '.join(opsets)}"


def _core(error: str) -> str:
    """What ONNX Runtime says, without the place in its source and its preamble."""
    return re.split(r"\) |\. ", error.rstrip("."))[-1]


def _answer(models: Sequence[bytes], providers: Sequence[str]) -> dict[str, Any] | None:
    """The answer of ONNX Runtime, None if it gave none."""
    question = {"providers": list(providers), "models": [b64encode(model).decode() for model in models]}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(PROBE)],
            input=json.dumps(question).encode(),
            capture_output=True,
            timeout=_SECONDS,
            check=True,
            env=telemetry.environment(),
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError, OSError):
        return None
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
