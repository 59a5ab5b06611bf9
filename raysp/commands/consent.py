"""Options of commands that build the model of a stored run: what it may run is allowed again by the person who gives the command."""

from typing import Annotated

import typer

AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help="Load pickled weights, which can run code, if the run did.")]
AllowRemoteCode = Annotated[bool, typer.Option("--allow-remote-code", help="Run code from the model's repository, if the run did.")]
