"""What a run with endpoints promises, in words: said when it is planned."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from schemas.config import MethodConfig, RunConfig
from schemas.trace import Role


def describe_endpoints(config: RunConfig) -> Iterator[str]:
    """A line for each endpoint that answers, and one about what they do to strict mode."""
    method = config.method
    for name, table in method.endpoints_in_use.items():
        execution = config.execution.endpoints[name]
        at = ", ".join(map(host_of, execution.url)) or "servers that the run starts"
        key = f", key from {execution.api_key_env}" if execution.api_key_env else ""
        yield f"Endpoint {name}: {_roles(method, name)} by {table.model}, at {at}{key}."
    if method.endpoints_in_use:
        yield (
            "Answers of endpoints are not promised to be the same twice, in strict mode, too: what "
            "is drawn after equal answers is, and answers that are committed stay."
        )


def host_of(url: str) -> str:
    """Of a URL the part that may be told: host and port."""
    return urlsplit(url).netloc


def _roles(method: MethodConfig, name: str) -> str:
    return " and ".join(role.value for role in Role if name in method.backends_of(role))
