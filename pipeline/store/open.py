"""From a URL to the store behind it."""

import re

from pipeline.file_names import check_is_text
from pipeline.store.local import open_local
from pipeline.store.objects import Store
from schemas.errors import InputError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")


def open_store(url: str) -> Store:
    """The store at a path, `file:///path` or `s3://bucket/prefix`. Asks nothing of it yet.

    Raises InputError for any other URL, for a name that is not UTF-8 and for AWS settings that
    cannot be used, StoreRefused for an endpoint that is known to overwrite.
    """
    scheme = _SCHEME.match(url)
    match scheme and scheme[1]:
        case None | "file" if url:
            store = open_local(url)
            check_is_text(store.url, "this folder")
            return store
        case "s3":
            from pipeline.store.s3 import open_s3  # loads boto3, which a local store does without

            check_is_text(url, "this folder")
            return open_s3(url)
        case other:  # not the URL itself: it may hold a password
            raise InputError(
                "expected a path, file:///path or s3://bucket/prefix as the place of a store; "
                f"found {f'{other}://' if other else 'nothing'}"
            )


def limit_silence(store: Store, seconds: float) -> None:
    """Have a store that is asked over a network give up on answers that are silent for so long.

    What is moving may take longer. For good: whoever else holds the store is served so, too.
    """
    if store.url.startswith("s3:"):
        from pipeline.store.s3 import S3Store

        if isinstance(store, S3Store):
            store.limit_silence(seconds)
