"""Whether a Ray can be joined at an address, found out before Ray tries.

Asked is what a driver will depend on, each by one call with a limit of time: the head's own table
(so a Ray answers, takes our token and is of our version), and whether this machine is a node of it.
The calls are Ray's, and private to it: where a version has them under other names, nothing is
asked, and Ray is left to find out.
"""

import json
import os
import platform
import re
import time
from contextlib import closing
from importlib import import_module
from types import ModuleType

import grpc
import ray

from schemas.errors import InputError

CALL_SECONDS = 8.0
NODE_SECONDS = 20.0  # that a raylet which has just been started may take to be in the table

_PLACE = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+):([0-9]{1,5})")
_CLIENT = "ray://"
_FORMS = "give the host:port of its head, as `ray start --head` prints it, or auto"
_TOKEN_AT = "RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file with it (else ~/.ray/auth_token)"


def check_address(address: str) -> None:
    """Return if a Ray of our version answers at the address and can be joined from here.

    `local` starts one and is not asked. Raises InputError, at most half a minute later.
    """
    if address == "local":
        return
    is_client = address.startswith(_CLIENT)
    host_port = address.removeprefix(_CLIENT).partition("/")[0] if is_client else address
    if address == "auto":
        host_port = _found_here()
    match = _PLACE.fullmatch(host_port)
    if match is None or not 0 < int(match[1]) < 2**16:
        raise InputError(f"{address!r} is no address of a Ray: {_FORMS}")
    try:
        _check_token(address)
        if is_client:
            _ask_client_server(address, host_port)
        else:
            _ask_head(address, host_port)
    except (ImportError, AttributeError):  # names of another version of Ray
        return


def _found_here() -> str:
    """The host:port of the Ray that runs on this machine."""
    from ray._private import services

    try:
        host_port = services.canonicalize_bootstrap_address("auto")
    except (ConnectionError, ValueError, OSError):
        host_port = None
    if not host_port:
        raise InputError(
            "no Ray runs on this machine (the address is auto): start one with ray start --head, "
            "give the host:port of another, or leave the address out"
        )
    return str(host_port)


def _check_token(address: str) -> None:
    """Raises InputError if Ray is told to use a token and finds none."""
    from ray.exceptions import AuthenticationError

    if not _has_token_mode():
        return
    try:
        loader = import_module("ray._raylet").AuthenticationTokenLoader
        has_token = loader.instance().has_token()
    except AuthenticationError:  # the file that was named
        has_token = False
    if not has_token:
        raise InputError(
            f"no token for the Ray at {address} is to be had, though RAY_AUTH_MODE is token: "
            f"set {_TOKEN_AT}"
        )


def _ask_head(address: str, host_port: str) -> None:
    from ray._private.gcs_utils import create_gcs_channel
    from ray._private.services import resolve_ip_for_localhost

    host, _, port = host_port.rpartition(":")
    with closing(create_gcs_channel(f"{resolve_ip_for_localhost(host)}:{port}")) as channel:
        table = _generated("gcs_service_pb2_grpc").InternalKVGcsServiceStub(channel)
        request = _generated("gcs_service_pb2").InternalKVGetRequest(
            key=b"CLUSTER_METADATA", namespace=b"cluster"
        )
        try:
            metadata = table.InternalKVGet(request, timeout=CALL_SECONDS).value
            _check_version(address, metadata)
            _check_node(address, channel)
        except grpc.RpcError as error:
            raise _refusal(address, error) from error


def _ask_client_server(address: str, host_port: str) -> None:
    from ray._private.gcs_utils import create_gcs_channel

    with closing(create_gcs_channel(host_port)) as channel:
        server = _generated("ray_client_pb2_grpc").RayletDriverStub(channel)
        words = _generated("ray_client_pb2")
        ping = words.ClusterInfoRequest(type=words.ClusterInfoType.PING)
        try:
            server.ClusterInfo(ping, timeout=CALL_SECONDS, metadata=[("client_id", "coppice")])
        except grpc.RpcError as error:
            raise _refusal(address, error) from error


def _check_version(address: str, metadata: bytes) -> None:
    """Raises InputError if the head's versions of Ray and Python are not those of this process."""
    try:
        told = json.loads(metadata)
        theirs = str(told["ray_version"]), str(told["python_version"])
    except (ValueError, KeyError, TypeError):  # a head that does not tell: Ray will see
        return
    ours = ray.__version__, platform.python_version()
    level = os.environ.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "patch")
    num_parts = 2 if level == "minor" else 3
    is_same_python = theirs[1].split(".")[:num_parts] == ours[1].split(".")[:num_parts]
    if theirs[0] != ours[0] or not is_same_python:
        raise InputError(
            f"the Ray at {address} is Ray {theirs[0]} on Python {theirs[1]}, and here are Ray "
            f"{ours[0]} and Python {ours[1]}: install the same on both"
        )


def _check_node(address: str, channel: grpc.Channel) -> None:
    """Raises InputError if no process of this cluster runs on this machine: no driver can, then."""
    find_node_ids = import_module("ray._private.services").find_node_ids
    table = _generated("gcs_service_pb2_grpc").NodeInfoGcsServiceStub(channel)
    give_up_at = time.monotonic() + NODE_SECONDS

    def is_here() -> bool:
        request = _generated("gcs_service_pb2").GetAllNodeInfoRequest()
        for node_id in find_node_ids():
            request.node_selectors.add(node_id=bytes.fromhex(node_id))
        if not request.node_selectors:
            return False
        return bool(table.GetAllNodeInfo(request, timeout=CALL_SECONDS).node_info_list)

    while not is_here():
        if time.monotonic() > give_up_at:
            raise InputError(
                f"the Ray at {address} answers, but this machine is no node of it: start coppice "
                "on one of its nodes, submit it there with ray job submit, or join first: "
                f"ray start --address={address}"
            )
        time.sleep(0.5)


def _refusal(address: str, error: grpc.RpcError) -> InputError:
    """What an answer that is none means, in one sentence."""
    code = error.code()
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return InputError(_told_of_token(address))
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        why = f"what is there did not answer in {CALL_SECONDS:.0f} s"
    elif code == grpc.StatusCode.UNIMPLEMENTED:
        why = "what is there is no Ray, or one of another version or kind of port"
    elif code == grpc.StatusCode.UNAVAILABLE:
        why = _why_unavailable(str(error.details()))
    else:
        why = f"it said {code.name}"
    return InputError(f"no Ray can be reached at {address} ({why}): start it, or {_FORMS}")


def _has_token_mode() -> bool:
    raylet = import_module("ray._raylet")
    return bool(raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN)


def _generated(name: str) -> ModuleType:
    """A module of messages or stubs that Ray was built with."""
    return import_module(f"ray.core.generated.{name}")


def _why_unavailable(details: str) -> str:
    if "resolv" in details or "lookup" in details:
        return "its host is not known"
    if "refused" in details:
        return "nothing listens there"
    if "HTTP" in details or "SETTINGS" in details:
        return "what listens there is something else"
    return "there is no way to it"


def _told_of_token(address: str) -> str:
    if _has_token_mode():
        return (
            f"the Ray at {address} takes another token than the one given here: correct {_TOKEN_AT}"
        )
    return f"the Ray at {address} asks for a token: set RAY_AUTH_MODE=token, and {_TOKEN_AT}"
