# SPDX-License-Identifier: Apache-2.0
"""Training in a transform domain: which layers, which transform, how much of it stays.

The choices of the published experiments: fully connected layers only, convolutions only, or all
(Uzan et al.'s and related transform-domain networks); each is a recipe for `toolkit.nn.wrap`.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from passes.settings import Recipe, Rule, WeightSettings
from toolkit.errors import InputError

Layers = Literal["linear", "conv", "all"]


def transform_recipe(
    kind: str = "dct",
    layers: Layers = "all",
    *,
    keep: float | None = None,
    block: int | None = 64,
    bits: int | None = 6,
    relative_step: float | None = None,
) -> Recipe:
    """A recipe that trains the weights of some layers in a transform domain.

    Args:
        kind: ``dct``, ``dst``, ``dft``, a wavelet of PyWavelets, or ``cosine`` for rows of learned
            frequencies in fully connected layers (2 * out numbers in place of in * out).
        layers: ``linear``, ``conv`` or ``all``; other weights keep their own domain.
        keep: Share of the coefficients that stays (the largest); None for all.
        block: Length of the blocks along the rows of fully connected layers.
        bits: Of the coefficients, and of the weights of other layers.
        relative_step: In place of ``bits``: the step over the root mean square.

    Raises:
        InputError: an option that does not exist.
    """
    if layers not in get_args(Layers):
        raise InputError(f"transform: layers: expected linear, conv or all, found {layers!r}")
    if keep is not None and not 0 < keep <= 1:
        raise InputError(f"transform: keep: expected a share above 0, found {keep}")
    if kind == "cosine" and layers != "linear":
        raise InputError("transform: learned cosines are of linear layers only")
    last: dict[str, Any] = {"bits": bits} if relative_step is None else {}
    if relative_step is not None:
        last = {"relative_step": relative_step}
    uniform = {"uniform": last}

    def stages(of_linear: bool) -> tuple[Any, ...]:
        if kind == "cosine":
            return ("cosine_rows",)
        options: dict[str, Any] = {"kind": kind}
        if of_linear:
            options |= {"axes": [-1], "block": block}
        pruned = () if keep is None or keep == 1 else ({"prune": {"fraction": keep}},)
        return ({"transform": options}, *pruned, uniform)

    plain = WeightSettings(stages=(uniform,))
    rules = []
    for operators, of_linear in ((("Conv",), False), (("Gemm",), True)):
        mine = layers == "all" or (layers == "linear") == of_linear
        settings = WeightSettings(stages=stages(of_linear)) if mine else plain
        for op_type in operators:
            rules.append(Rule(op_type=op_type, role="weight", optional=True, settings=settings))
    keep_others = WeightSettings(scheme="keep")
    return Recipe(version=1, rules=tuple(rules), default=keep_others, minor=keep_others)
