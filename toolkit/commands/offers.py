# SPDX-License-Identifier: Apache-2.0
"""The commands that say what there is to choose from: `toolkit passes` and `toolkit recipe`."""

from __future__ import annotations

import click

from toolkit.commands.options import JSON_OPTION
from toolkit.commands.reporting import reported, show
from toolkit.errors import InputError


@click.command("passes")
@JSON_OPTION
@click.pass_context
def passes_command(context: click.Context, as_json: bool) -> None:
    """List the graph passes and the schemes, with their options."""
    with reported(context):
        from toolkit.list_passes import listed_passes
        from toolkit.printing import print_passes

        found = listed_passes()
        show([f.as_dict() for f in found], as_json, lambda: print_passes(found))


@click.command("recipe")
@click.argument("name", required=False)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of recipes.")
@click.pass_context
def recipe_command(context: click.Context, name: str | None, schema: bool) -> None:
    """Print the ready recipe NAME; without it, the names of all of them."""
    with reported(context):
        from toolkit import recipes

        if schema and name:
            raise InputError("NAME and --schema: give only one of them")
        click.echo(recipes.schema() if schema else recipes.text(name) if name else recipes.names())
