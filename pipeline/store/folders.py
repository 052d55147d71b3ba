"""The folders in a folder, which no verb of a store tells: only `gc` wants to know."""

import os
from collections.abc import Iterator
from contextlib import suppress

from pipeline.store.local import LocalStore
from pipeline.store.objects import Store, checked_folder, join_key
from pipeline.store.open import open_store


def list_subfolders(store: Store, folder: str) -> Iterator[str]:
    """The folders directly in a folder, as keys. On S3, those that have objects below them."""
    there = open_store(store.url)
    if isinstance(there, LocalStore):
        return _local_subfolders(there, folder)
    return _s3_subfolders(there, folder)


def _local_subfolders(store: LocalStore, folder: str) -> Iterator[str]:
    absent = suppress(FileNotFoundError, NotADirectoryError)
    with absent, os.scandir(store.root / checked_folder(folder)) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                yield join_key(folder, entry.name)


def _s3_subfolders(store: Store, folder: str) -> Iterator[str]:
    from pipeline.store.s3 import S3Store

    assert isinstance(store, S3Store), "there are two kinds of stores"
    prefix = f"{join_key(store._prefix, checked_folder(folder))}/"
    pages = store._client.get_paginator("list_objects_v2").paginate(
        Bucket=store._bucket, Prefix=prefix, Delimiter="/"
    )
    with store._asking("list", folder):
        for page in pages:
            for found in page.get("CommonPrefixes", []):
                yield join_key(folder, found["Prefix"].removeprefix(prefix).removesuffix("/"))
