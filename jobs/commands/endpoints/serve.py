"""What `coppice serve` does: one endpoint's server, apart from any run, for as long as it runs."""

import signal
import threading
from pathlib import Path

from jobs.cluster.serving.here import kept_here
from jobs.cluster.serving.keeper import Phase, ServerStatus
from jobs.commands.terminal import Terminal
from pipeline.plan.configs import read_config_file, with_settings
from pipeline.plan.endpoints import endpoint_of
from schemas.errors import EndpointAway, ExitCode

_LOOK_SECONDS = 0.2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve_endpoint(
    name: str,
    config_file: str,
    settings: list[str],
    terminal: Terminal,
    *,
    host: str,
    port: int,
) -> ExitCode:
    """Start the server of an endpoint, say where it is once it answers, and end it on Ctrl-C.

    Raises InputError for what cannot be served, and EndpointAway for a server that is given up.
    """
    tables = with_settings(read_config_file(config_file), settings)
    method, execution = endpoint_of(tables, name, may_be_served=True)
    is_over = threading.Event()
    before = {sign: signal.signal(sign, lambda *_: is_over.set()) for sign in _SIGNALS}
    try:
        with kept_here(name, method, execution, host=host, port=port) as (keeper, log):
            terminal.say(f"Starting {method.model} for endpoint {name}; its log: {log}")
            told = ServerStatus()
            while not is_over.wait(_LOOK_SECONDS):
                status = keeper.status()
                if status != told:
                    _say(status, told, name, log, terminal)
                told = status
            terminal.say("Ending the server.")
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
    terminal.say("The server has ended, and all that it started.")
    return ExitCode.COMPLETE


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
            "Ctrl-C ends it.",
        )
