# SPDX-License-Identifier: Apache-2.0
"""From a trained torch model to a compressed ONNX file, with the symbols as they were trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from toolkit.errors import InputError, one_line
from toolkit.nn.baking import plain_copy
from toolkit.nn.model_size import fitted_parameters, plain_bytes
from toolkit.nn.onnx_graph import OPSET, graph_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from passes import Coding, EncodedWeight, Recipe, WeightSettings
    from passes.schemes import Parameters


@dataclass
class ExportReport:
    """What `export` wrote.

    Attributes:
        path: The file.
        num_bytes: Of the file, external data included.
        original_bytes: All parameters and floating-point buffers as float32.
        code_bytes: The blobs of symbols with their tables and headers.
        other_bytes: The rest: scales, codebooks, tensors that stayed as they were, nodes, names.
        encoded: One row for each compressed tensor.
        names: Name of a tensor in the torch model -> its name in the file.
        functions: Decoders whose bodies the file carries, for stock ONNX Runtime.
        notes: What was left alone, and why.
        largest_difference: Of the outputs for the example inputs, the file's in load mode from the
            model's in torch, absolute.
        seconds: How long it took.
    """

    path: Path
    num_bytes: int
    original_bytes: int
    code_bytes: int
    other_bytes: int
    encoded: list[EncodedWeight]
    names: dict[str, str]
    functions: list[str]
    notes: list[str] = field(default_factory=list)
    largest_difference: float = 0.0
    seconds: float = 0.0

    @property
    def ratio(self) -> float:
        """Bytes of the parameters as float32 / bytes of the file."""
        return self.original_bytes / max(self.num_bytes, 1)


def export(
    model: nn.Module | Callable[[], nn.Module],
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any],
    path: str | Path,
    *,
    state_dict: Mapping[str, Tensor] | None = None,
    recipe: Recipe | str | Path | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_batch: bool = True,
    keep_names: bool = False,
    portable: Literal["auto", "always", "never"] = "auto",
    codings: Mapping[str, Coding] | None = None,
    opset: int = OPSET,
) -> ExportReport:
    """Writes a torch model as a compressed ONNX file, and checks what was written.

    Tensors with a compressed form are stored as they were trained: their symbols are coded, never
    quantised again, and decode bit for bit to the module's weight in evaluation mode. Others stay
    float32, unless ``recipe`` says how to compress them.

    Args:
        model: The model, which is left as it is, or what makes it, for a ``state_dict``.
        example_inputs: A tensor, a sequence of positional inputs, or inputs by name.
        path: The file to write.
        state_dict: Weights that are loaded first.
        recipe: A recipe, its YAML file or the name of a built-in one: for tensors without a
            compressed form, by their names in the state dict.
        input_names, output_names: Of the graph; None for the model's argument names and ``y``.
        dynamic_batch: Whether the first dimension of all inputs is free.
        keep_names: Keep the names of tensors, which take bytes, in place of the shortest ones.
        portable: Whether the file carries the decoders for stock ONNX Runtime; ``auto``: where
            they are small beside it.
        codings: How the symbols of a tensor are coded, by its name; the smallest way where None.
        opset: ONNX operator set, 18 or more.

    Raises:
        InputError: the model cannot be exported, the state dict or the recipe does not fit it.
        VerificationError: the written file does not hold the weights, or its outputs are not the
            model's.
    """
    from passes import write_model
    from passes.errors import ModelError

    start, target = time.perf_counter(), Path(path)
    module = _loaded(model, state_dict)
    was_training = module.training
    module.eval()
    try:
        fitted, num_plain = fitted_parameters(module), plain_bytes(module)
        plain = plain_copy(module)
    finally:
        module.train(was_training)
    graph = graph_of(
        plain,
        example_inputs,
        input_names=input_names,
        output_names=output_names,
        dynamic_batch=dynamic_batch,
        opset=opset,
    )
    _shorten_norms(graph, fitted, recipe)
    notes = [f"{n}: not in the graph" for n in fitted if n not in graph.graph.initializers]
    settings = _settings(graph, recipe, fitted)
    known = {n: p for n, p in fitted.items() if n in graph.graph.initializers}
    names = {n: n for n in graph.graph.initializers if n is not None}
    if not keep_names:
        names = _shorten(graph)
    plan = {names[name]: entry for name, entry in (settings | known).items()}
    coded = {names[name]: coding for name, coding in (codings or {}).items() if name in names}
    from toolkit.pipeline import FileLayout, finish

    try:
        finished = finish(graph, plan, FileLayout(portable), coded, compact=True)
        num_bytes = write_model(finished.model, target)
    except ModelError as error:
        raise InputError(f"{target}: {one_line(error)}") from error
    code_bytes = sum(row.code_bytes for row in finished.encoded)
    report = ExportReport(
        path=target,
        num_bytes=num_bytes,
        original_bytes=num_plain,
        code_bytes=code_bytes,
        other_bytes=num_bytes - code_bytes,
        encoded=finished.encoded,
        names=names,
        functions=finished.functions,
        notes=[*notes, *finished.notes],
    )
    from toolkit.nn.check_export import check_outputs, check_stored

    check_stored(target, known, names, finished.encoded)
    report.largest_difference = check_outputs(
        target, plain, example_inputs, is_lossy=bool(settings)
    )
    report.seconds = time.perf_counter() - start
    return report


def _loaded(
    model: nn.Module | Callable[[], nn.Module], state_dict: Mapping[str, Tensor] | None
) -> nn.Module:
    module = model if isinstance(model, nn.Module) else model()
    if not isinstance(module, nn.Module):
        raise InputError(f"model: expected a torch module, found {type(module).__name__}")
    if state_dict is not None:
        try:
            module.load_state_dict(dict(state_dict))
        except RuntimeError as error:
            raise InputError(f"the state dict does not fit the model: {one_line(error)}") from error
    return module


def _shorten_norms(
    graph: ir.Model, fitted: Mapping[str, Parameters], recipe: Recipe | str | Path | None
) -> None:
    """Folds normalisations into layers that are stored as floats, and takes from others what two
    numbers per channel say. Not where a recipe has rules for such tensors."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    from passes import FoldBatchNorm, ShortenBatchNorm

    if recipe is not None:
        return
    FoldBatchNorm(keep=fitted)(graph)
    ShortenBatchNorm(keep=fitted)(graph)
    RemoveUnusedNodesPass()(graph)


def _settings(
    graph: ir.Model, recipe: Recipe | str | Path | None, fitted: Mapping[str, Parameters]
) -> dict[str, WeightSettings]:
    """What the recipe says of tensors that have no compressed form."""
    if recipe is None:
        return {}
    from passes import Recipe as RecipeClass
    from passes import SettingsError, select_weights
    from toolkit.recipes import read as read_recipe

    try:
        read = recipe if isinstance(recipe, RecipeClass) else read_recipe(recipe)
        others = [w for w in select_weights(graph) if w.name not in fitted]
        assigned = read.assign(others)
    except SettingsError as error:
        raise InputError(str(error)) from error
    return {name: how for name, how in assigned.items() if how.scheme != "keep"}


def _shorten(graph: ir.Model) -> dict[str, str]:
    """Gives all initializers the shortest names; returns the new ones by the old."""
    from passes.chain_builder import short_names

    main = graph.graph
    ends = {value.name for value in (*main.inputs, *main.outputs) if value.name}
    fresh, found, renamed = short_names(ends), dict[str, str](), list(main.initializers.values())
    inner = [v for g in graph.graphs() for node in g for v in node.outputs]
    for index, value in enumerate(inner):  # out of the way; CleanUp gives them short names
        if value.name not in ends:
            value.name = f"inner value {index}"
    for value in renamed:
        del main.initializers[value.name or ""]
    for value in renamed:
        old, value.name = value.name or "", next(fresh)
        found[old] = value.name
        main.register_initializer(value)
    return found
