"""What `coppice serve` does: one endpoint's server, apart from any run, for as long as it runs."""

import time
from pathlib import Path
from typing import NoReturn

from jobs.cluster.serving.here import kept_here
from jobs.cluster.serving.keeper import Phase, ServerStatus
from jobs.commands.terminal import Terminal
from pipeline.plan.configs import read_config_file, with_settings
from pipeline.plan.endpoints import endpoint_of
from schemas.errors import EndpointAway

_LOOK_SECONDS = 0.2


def serve_endpoint(
    name: str,
    config_file: str,
    settings: list[str],
    terminal: Terminal,
    *,
    host: str,
    port: int,
) -> NoReturn:
    """Start the server of an endpoint, say where it is once it answers, and keep it till a signal.

    Raises InputError for what cannot be served, and EndpointAway for a server that is given up.
    """
    tables = with_settings(read_config_file(config_file), settings)
    method, execution = endpoint_of(tables, name, may_be_served=True)
    with kept_here(name, method, execution, host=host, port=port) as (keeper, log):
        terminal.say(f"Starting {method.model} for endpoint {name}; its log: {log}")
        told = ServerStatus()
        while True:
            status = keeper.status()
            if status != told:
                _say(status, told, name, log, terminal)
            told = status
            time.sleep(_LOOK_SECONDS)


def _say(
    status: ServerStatus, before: ServerStatus, name: str, log: Path, terminal: Terminal
) -> None:
    if status.phase is Phase.LOST:
        raise EndpointAway(
            f"the server of endpoint {name} is given up: {status.message}; see {log}"
        )
    if status.num_restarts > before.num_restarts:
        terminal.say(f"Again: {status.message}.")
    if status.phase is Phase.ANSWERING and before.phase is not Phase.ANSWERING:
        terminal.say(
            f"Answering at {status.url}",
            f'In a config: [execution.endpoints.{name}] url = "{status.url}"',
            "Ctrl-C ends it, and all that it started.",
        )
