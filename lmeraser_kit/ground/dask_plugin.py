"""What a Dask worker keeps for many calls. Imported where there is a client, and so there is Dask."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import dask
from distributed import WorkerPlugin

from lmeraser_kit.ground.held import HELD, Key


class Holder(WorkerPlugin):
    """Keeps what was sent once, from the worker's start, or from now on, until the client has it dropped.

    Args:
        key: By what it is found.
        made_of: What is kept.
    """

    idempotent = True

    def __init__(self, key: Key, made_of: Any):
        self.key, self.made_of = key, made_of

    def setup(self, worker: Any) -> None:
        """On every worker, also on one that joins later."""
        HELD[self.key] = self.made_of

    def teardown(self, worker: Any) -> None:
        """When it is no longer needed."""
        HELD.pop(self.key, None)


def large_calls() -> AbstractContextManager:
    """No warning that a call is large: it holds the images of a cluster."""
    return dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"})
