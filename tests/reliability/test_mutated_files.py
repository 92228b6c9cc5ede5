"""Readers under mutated files: a right result or one clear error, nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from reliability.fuzzing import fuzz, page
from reliability.readers import READERS

#: Inputs a reader in the slow tier; together more than 10,000.
MANY = {"input_specs": 150, "programs": 150, "interrupted_runs": 150, "onnx": 150, "results": 400}
#: Those that answer in milliseconds.
QUICK = ("idx", "tar", "shards", "annotations", "checkpoints", "pickles", "measurements", "images")


def test_a_few_mutated_files_end_in_a_result_or_one_clear_error(pytestconfig):
    """In a process of its own: one that has run torch's threads is not to be forked."""
    program = pytestconfig.rootpath / "tests" / "reliability" / "fuzzing.py"
    done = subprocess.run(
        [sys.executable, str(program), "--readers", ",".join(QUICK), "--count", "40"],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert len(re.findall(": 40 inputs in ", done.stdout)) == len(QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(READERS))
def test_mutated_files_end_in_a_result_or_one_clear_error(name):
    count = MANY.get(name, 1000)
    _, failures, tried = fuzz(name, count=count)
    assert failures == {}
    assert tried == count


def test_the_page_has_the_committed_figures(pytestconfig):
    record = json.loads((pytestconfig.rootpath / "results" / "fuzzing.json").read_text())
    text = (pytestconfig.rootpath / "docs" / "reliability.md").read_text()
    assert page(record) in text
    assert all(not figures["failures"] for figures in record["readers"].values())


def test_the_slow_tier_tries_more_than_ten_thousand():
    assert sum(MANY.get(name, 1000) for name in READERS) >= 10_000
