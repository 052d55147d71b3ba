"""An endpoint of a config, met and ready to be asked."""

from pipeline.endpoints.backend import RemoteBackend
from pipeline.endpoints.chat import ChatRequest
from pipeline.endpoints.client import EndpointClient
from pipeline.endpoints.facts import ServerFacts, meet
from pipeline.endpoints.keys import key_of
from pipeline.pictures import Painter
from pipeline.twig.requests import Message
from schemas.config import RunConfig, SamplingConfig
from schemas.endpoints import EndpointExecution, EndpointMethod
from schemas.trace import Role


def open_endpoint(config: RunConfig, name: str, painter: Painter) -> RemoteBackend:
    """An endpoint as a backend of a run, its pictures painted by who draws.

    Raises InputError and EndpointAway as `open_client` does.
    """
    method = config.method
    client, facts = open_client(
        name,
        method.endpoints[name],
        config.execution.endpoints[name],
        method.sampling_of(name),
        with_picture=any(name in method.backends_of(role) for role in (Role.THINK, Role.REFLECT)),
    )
    return RemoteBackend(client, facts, painter)


def open_client(
    name: str,
    method: EndpointMethod,
    execution: EndpointExecution,
    sampling: SamplingConfig,
    *,
    with_picture: bool = False,
) -> tuple[EndpointClient, ServerFacts]:
    """A client of an endpoint, whose server was asked as it will be asked.

    Raises InputError for a key that is not in this environment, or a server that is not what the
    config says, and EndpointAway for one that does not answer within its patience.
    """
    client = EndpointClient(name, method, execution, key=key_of(name, execution))
    like = ChatRequest(
        messages=(Message(role="user", text=""),),
        temperature=sampling.text_temperature,
        top_p=sampling.text_top_p,
        max_tokens=sampling.max_text_tokens,
        seed=0 if sampling.text_temperature else None,
        with_logp=sampling.with_logp and sampling.text_temperature > 0,
        request_id="coppice-probe",
    )
    try:
        return client, meet(client, like, with_picture=with_picture)
    except BaseException:
        client.close()
        raise
