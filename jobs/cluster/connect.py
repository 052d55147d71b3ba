"""A Ray to work on."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import ray


@contextmanager
def on_ray(address: str | None) -> Iterator[None]:
    """A Ray to work on: the cluster at `address`, or one on this machine, ended afterwards."""
    ray.init(
        address=address or "local",
        include_dashboard=None if address else False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()
