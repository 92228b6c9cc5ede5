"""Benchmarks name networks and options that exist, so that their figures can be made again."""

import subprocess
import sys


def test_every_variant_of_why_can_be_built(pytestconfig):
    # In a process of its own: the benchmark registers a network of its own.
    code = (
        "from benchmarks.why import VARIANTS; from nearfar import create_model; "
        "[create_model(name, num_classes=10, in_chans=1, **options) for _, _, name, options, _ in VARIANTS]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=pytestconfig.rootpath)
