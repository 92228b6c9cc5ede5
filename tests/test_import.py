"""What ``import nearfar`` imports, and that the networks are in timm's registry all the same."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nearfar


def run(code):
    """Runs code in a Python of its own, and returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HEAVY = ("timm", "torchvision", "lightning", "matplotlib", "sklearn", "pandas", "scipy")


def test_nearfar_alone_imports_nothing_heavy():
    code = "import sys, nearfar; print(*(name for name in {} if name in sys.modules))"
    assert run(code.format(("torch", *HEAVY))) == ""


def test_operators_and_layers_need_torch_alone():
    code = (
        "import sys, nearfar; nearfar.SIConv2d, nearfar.pyramid, nearfar.functional, nearfar.scales; "
        "print(*(name for name in {} if name in sys.modules))"
    )
    assert run(code.format(HEAVY)) == ""


@pytest.mark.parametrize(
    "imports",
    [
        "import nearfar, timm",
        "import timm, nearfar",
        "import nearfar; from timm.models import create_model; import timm",
        "import nearfar.models, timm",
    ],
)
def test_timm_knows_the_networks_in_either_order(imports):
    code = (
        f"{imports}\n"
        "model = timm.create_model('nearfar_si_cnn_small', num_classes=3)\n"
        "print(type(model).__module__, len(timm.list_models('nearfar_*')))"
    )
    module, count = run(code).split()
    assert module == "nearfar.models.cnn_small"
    assert int(count) == len(nearfar.list_models())


def test_timm_is_found_as_before():
    code = (
        "import nearfar, importlib, importlib.util\n"
        "assert importlib.util.find_spec('timm').name == 'timm'\n"
        "assert importlib.util.find_spec('timm_of_another_name') is None\n"
        "import timm\n"
        "importlib.reload(timm)\n"
        "print(timm.__spec__.loader.get_source('timm') != '')"
    )
    assert run(code) == "True"


def test_every_public_name_is_there_and_listed():
    for name in nearfar.__all__:
        assert getattr(nearfar, name) is not None
        assert name in dir(nearfar)
    assert callable(nearfar.convert)
    assert callable(nearfar.predict)
    assert nearfar.training.train is nearfar.train
    with pytest.raises(AttributeError, match="module 'nearfar' has no attribute 'nothing'"):
        _ = nearfar.nothing
