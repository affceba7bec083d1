"""Processes of tests that need several, forked from one that has imported the slow packages."""

from __future__ import annotations

import multiprocessing

FORKSERVER = multiprocessing.get_context("forkserver")
# torch takes seconds to import, which each spawned process would spend again.
FORKSERVER.set_forkserver_preload(["data_gen.generation.cache", "data_gen.problems.ns2d"])
