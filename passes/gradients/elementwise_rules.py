# SPDX-License-Identifier: Apache-2.0
"""What operators that work on each element hand back to their inputs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from passes.gradients.tape import Given, Rule, Tape

_Slope = Callable[[Tape, ir.Node], ir.Value | None]


def _by_slope(slope: _Slope) -> Rule:
    """A rule for y = f(x) by f'(x)."""

    def rule(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
        factor = slope(tape, node)
        return None if factor is None else [tape.op("Mul", given, factor)]

    return rule


def _float(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.as_float())


def _where(tape: Tape, condition: ir.Value) -> ir.Value:
    """1 where it holds, 0 elsewhere."""
    return tape.op("Cast", condition, to=int(ir.DataType.FLOAT))


def _x(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    if value is None:
        raise ValueError(f"{node.op_type} without an input")
    return value


def _relu(tape: Tape, node: ir.Node) -> ir.Value:
    return _where(tape, tape.op("Greater", _x(node), tape.number(0)))


def _leaky(tape: Tape, node: ir.Node) -> ir.Value:
    above = tape.op("Greater", _x(node), tape.number(0))
    alpha = tape.number(_float(node, "alpha", 0.01))
    return tape.op("Where", above, tape.number(1), alpha)


def _clip(tape: Tape, node: ir.Node) -> ir.Value:
    inside: ir.Value | None = None
    for index, kind in ((1, "Greater"), (2, "Less")):
        bound = node.inputs[index] if index < len(node.inputs) else None
        if bound is not None:
            found = _where(tape, tape.op(kind, _x(node), bound))
            inside = found if inside is None else tape.op("Mul", inside, found)
    return tape.number(1) if inside is None else inside


def _sigmoid(tape: Tape, node: ir.Node) -> ir.Value:
    y = node.outputs[0]
    return tape.op("Mul", y, tape.op("Sub", tape.number(1), y))


def _tanh(tape: Tape, node: ir.Node) -> ir.Value:
    y = node.outputs[0]
    return tape.op("Sub", tape.number(1), tape.op("Mul", y, y))


def _erf(tape: Tape, node: ir.Node) -> ir.Value:
    square = tape.op("Mul", _x(node), _x(node))
    return tape.op(
        "Mul", tape.op("Exp", tape.op("Neg", square)), tape.number(2 / math.sqrt(math.pi))
    )


def _hard_sigmoid(tape: Tape, node: ir.Node) -> ir.Value:
    y, alpha = node.outputs[0], _float(node, "alpha", 0.2)
    inside = tape.op(
        "And", tape.op("Greater", y, tape.number(0)), tape.op("Less", y, tape.number(1))
    )
    return tape.op("Mul", _where(tape, inside), tape.number(alpha))


def _hard_swish(tape: Tape, node: ir.Node) -> ir.Value:
    x = _x(node)
    middle = tape.op("Add", tape.op("Mul", x, tape.number(1 / 3)), tape.number(0.5))
    above = tape.op("Greater", x, tape.number(3))
    below = tape.op("Less", x, tape.number(-3))
    return tape.op("Where", above, tape.number(1), tape.op("Where", below, tape.number(0), middle))


def _gelu(tape: Tape, node: ir.Node) -> ir.Value | None:
    """Phi(x) + x phi(x), of the exact form."""
    form = node.attributes.get("approximate")
    if form is not None and form.as_string() != "none":
        return None
    x = _x(node)
    phi = tape.op("Erf", tape.op("Mul", x, tape.number(1 / math.sqrt(2))))
    share = tape.op("Mul", tape.op("Add", phi, tape.number(1)), tape.number(0.5))
    bell = tape.op("Exp", tape.op("Mul", tape.op("Mul", x, x), tape.number(-0.5)))
    rest = tape.op("Mul", tape.op("Mul", x, bell), tape.number(1 / math.sqrt(2 * math.pi)))
    return tape.op("Add", share, rest)


def _same(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    return [given]


def _add(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    return [tape.summed_to(given, value) for value in node.inputs if value is not None]


def _sub(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    first, second = (value for value in node.inputs if value is not None)
    return [tape.summed_to(given, first), tape.summed_to(tape.op("Neg", given), second)]


def _mul(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    first, second = (value for value in node.inputs if value is not None)
    return [
        tape.summed_to(tape.op("Mul", given, second), first),
        tape.summed_to(tape.op("Mul", given, first), second),
    ]


def _div(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    first, second = (value for value in node.inputs if value is not None)
    each = tape.op("Div", given, second)
    down = tape.op("Neg", tape.op("Mul", each, node.outputs[0]))
    return [tape.summed_to(each, first), tape.summed_to(down, second)]


def _pow(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    exponent = None if node.inputs[1] is None else ir.convenience.get_const_tensor(node.inputs[1])
    if exponent is None or np.asarray(exponent.numpy()).size != 1:
        return None
    power = float(np.asarray(exponent.numpy()).reshape(-1)[0])
    raised = tape.op("Pow", _x(node), tape.number(power - 1))
    slope = tape.op("Mul", raised, tape.number(power))
    return [tape.summed_to(tape.op("Mul", given, slope), _x(node)), None]


def _chosen(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    condition, first, second = node.inputs
    if condition is None or first is None or second is None:
        return None
    nothing = tape.number(0)
    return [
        None,
        tape.summed_to(tape.op("Where", condition, given, nothing), first),
        tape.summed_to(tape.op("Where", condition, nothing, given), second),
    ]


RULES: dict[str, Rule] = {
    "Identity": _same,
    "Neg": _by_slope(lambda tape, node: tape.number(-1)),
    "Abs": _by_slope(lambda tape, node: tape.op("Sign", _x(node))),
    "Relu": _by_slope(_relu),
    "LeakyRelu": _by_slope(_leaky),
    "Clip": _by_slope(_clip),
    "Sigmoid": _by_slope(_sigmoid),
    "Tanh": _by_slope(_tanh),
    "Erf": _by_slope(_erf),
    "Gelu": _by_slope(_gelu),
    "HardSigmoid": _by_slope(_hard_sigmoid),
    "HardSwish": _by_slope(_hard_swish),
    "Softplus": _by_slope(lambda tape, node: tape.op("Sigmoid", _x(node))),
    "Exp": _by_slope(lambda tape, node: node.outputs[0]),
    "Log": _by_slope(lambda tape, node: tape.op("Reciprocal", _x(node))),
    "Sqrt": _by_slope(lambda tape, node: tape.op("Div", tape.number(0.5), node.outputs[0])),
    "Reciprocal": _by_slope(
        lambda tape, node: tape.op("Neg", tape.op("Mul", node.outputs[0], node.outputs[0]))
    ),
    "Add": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    "Pow": _pow,
    "Where": _chosen,
}
"""A Sum, Max, Min and PRelu are not followed."""
