"""Readers under mutated files: a right result or one clear error, nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from reliability import fuzzing
from reliability.fuzzing import page
from reliability.readers import READERS

#: Inputs a reader in the slow tier; together more than 10,000.
MANY = {"input_specs": 150, "programs": 150, "interrupted_runs": 150, "onnx": 150, "results": 400}
#: Those that answer in milliseconds.
QUICK = ("idx", "tar", "shards", "annotations", "checkpoints", "pickles", "measurements", "images")


def check(names, count):
    """In a process of its own: one that has run torch's threads is not to be forked."""
    done = subprocess.run(
        [sys.executable, fuzzing.__file__, "--readers", ",".join(names), "--count", str(count)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert len(re.findall(f": {count} inputs in ", done.stdout)) == len(names)


def test_a_few_mutated_files_end_in_a_result_or_one_clear_error():
    check(QUICK, 40)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(READERS))
def test_mutated_files_end_in_a_result_or_one_clear_error(name):
    check([name], MANY.get(name, 1000))


def test_the_page_has_the_committed_figures(pytestconfig):
    record = json.loads((pytestconfig.rootpath / "results" / "fuzzing.json").read_text())
    text = (pytestconfig.rootpath / "docs" / "reliability.md").read_text()
    assert page(record) in text
    assert all(not figures["failures"] for figures in record["readers"].values())


def test_the_slow_tier_tries_more_than_ten_thousand():
    assert sum(MANY.get(name, 1000) for name in READERS) >= 10_000
