"""Here or there: whether a command works on this machine and its cluster, or on a service elsewhere."""

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any, cast

import typer

from raysp.commands.place import Place
from raysp.errors import UserError
from raysp.remote.address import SERVER

Server = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="Have a service elsewhere do it, such as http://10.0.0.5:8270. Default RAYSP_SERVER.", show_default=False),
]


def place(server: str | None, store: str | None = None, *, local: bool = False) -> Place:
    """There if a server is given or `RAYSP_SERVER` names one, here otherwise, and where a store or --local say so. UserError for a server beside either."""
    for field, given in (("store", store), ("local", local or None)):
        if server is not None and given is not None:
            raise UserError(field, None if given is True else given, "is about this machine, and --server about another", "leave one of them out")
    named = server or os.environ.get(SERVER)
    if named and store is None and not local:
        from raysp.commands.there import There

        return There(named)
    from raysp.commands.here import Here

    return Here(store, local=local)


def here_only(function: Callable[..., Any], *, ignores_environment: bool = False) -> Callable[..., Any]:
    """A command that works on this machine: --server is refused, and so is `RAYSP_SERVER`, unless a store or --local say that this machine is meant."""
    parameters = inspect.signature(function).parameters

    @functools.wraps(function)
    def command(**given: Any) -> Any:
        server = given.pop("server")
        meant = ignores_environment or given.get("store") is not None or given.get("local")
        named = server or (None if meant else os.environ.get(SERVER))
        if named:
            name = function.__name__.replace("_", "-")
            field = "server" if server else SERVER
            raise UserError(
                field, named, f"cannot do `raysp {name}`, which works on the machine where it is given", "give it on the service's machine, without a server"
            )
        return function(**given)

    option = typer.Option("--server", hidden=True)
    extra = inspect.Parameter("server", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option])
    named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters.values()]
    cast("Any", command).__signature__ = inspect.Signature([*named, extra])
    return command
