"""Drivers that are stopped from outside: each ends with exit code 3, and the next one goes on."""

import signal
import time
from collections.abc import Callable, Sequence

from pipeline.store import layout
from pipeline.store.objects import Store
from pipeline.store.plans import read_manifest
from pipeline.store.status import committed_shards
from schemas.errors import ExitCode
from tests.chaos.cluster import Site, end_of, has_committed, quick_config, start_command, wait_until
from tests.support import plan_run

_MOMENT_SECONDS = 0.1

STOPS: dict[str, Sequence[int]] = {
    "a driver gets a Ctrl-C": [signal.SIGINT],
    "a driver gets a SIGTERM": [signal.SIGTERM],
    "a driver's terminal is closed": [signal.SIGHUP],
    "two Ctrl-C a moment apart": [signal.SIGINT, signal.SIGINT],
}


def stop_drivers(site: Site, name: str, number: int) -> None:
    """One run whose driver is stopped in its midst again and again."""

    def in_its_midst(store: Store, _: int) -> Callable[[], bool]:
        return has_committed(store, 2 + len(committed_shards(store, read_manifest(store))))

    _stop(site, name, STOPS[name], number, in_its_midst)


def stop_beginnings(site: Site, number: int) -> None:
    """The driver has its number, and joins Ray."""

    def has_begun(store: Store, done: int) -> Callable[[], bool]:
        def is_there() -> bool:
            names = [entry.key for entry in store.list_folder(layout.DRIVERS)]
            return sum(name.endswith(".json") for name in names) > done

        return is_there

    _stop(site, "a SIGTERM while Ray is joined", [signal.SIGTERM], number, has_begun)


def _stop(
    site: Site,
    name: str,
    signals: Sequence[int],
    number: int,
    is_time: Callable[[Store, int], Callable[[], bool]],
) -> None:
    store = site.fresh()
    num_prompts = 16 * (number + 1)
    plan_run(store, num_prompts, quick_config(), rollouts_per_shard=2)
    for done in range(number):
        driver = start_command(site, "run", store.url)
        wait_until(is_time(store, done), driver)
        with site.ledger.injecting(name):
            for which in signals:
                driver.send_signal(which)
                time.sleep(_MOMENT_SECONDS)
            code = end_of(driver)
        if code not in (ExitCode.INCOMPLETE, ExitCode.COMPLETE):  # it may just have been done
            site.ledger.wrong.append(f"{name}: it ended with {code}")
    assert end_of(start_command(site, "run", store.url)) == ExitCode.COMPLETE
    site.ledger.check(store, site.undisturbed(num_prompts), name)
