"""A conversion method of one's own: a registered dataclass, and nothing else."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nearfar.classifiers import InputOptions
from nearfar.cli.main import main
from nearfar.conversion import (
    ConversionMethod,
    LayerMethod,
    as_method,
    convert_network,
    list_methods,
    plan_conversion,
    register_method,
    take_over,
)
from nearfar.conversion import method as methods
from nearfar.data import DataSpec
from nearfar.deploy import convert
from nearfar.errors import InputError
from nearfar.models import create_model
from nearfar.training import FitSpec, ModelSpec, Recipe, TrainerSpec, load_checkpoint, train

DATA = DataSpec(train=60, validation=20, test=20)
SOURCE = '''
from dataclasses import dataclass

import torch
from torch import nn

from nearfar.conversion import LayerMethod, register_method, take_over


class Scaled(nn.Conv2d):
    """A convolution whose output is multiplied by a constant."""

    def __init__(self, *args, factor=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.factor = factor

    def forward(self, x):
        return self.factor * super().forward(x)


@register_method("scaled")
@dataclass(frozen=True)
class ScaledConvolutions(LayerMethod):
    """Convolutions whose output is multiplied.

    Args:
        layers: which ones.
        factor: by how much.
    """

    factor: float = 2.0

    def becomes(self, layer):
        return f"times {self.factor:g}"

    def replacement(self, layer):
        new = Scaled(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,
            bias=layer.bias is not None, device="meta", factor=self.factor,
        )
        return take_over(layer, new)
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module outside the package that registers the method ``scaled``."""
    (tmp_path / "my_methods.py").write_text(SOURCE)
    monkeypatch.setattr(methods, "_METHODS", dict(methods._METHODS))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_methods", raising=False)
    yield tmp_path
    sys.modules.pop("my_methods", None)


def network():
    torch.manual_seed(0)
    return create_model("cnn_small", num_classes=10, in_chans=1).eval()


def test_it_is_listed_and_converts(own):
    import my_methods

    assert list_methods() == ["antialias", "pyramid-ensemble", "fixres", "si", "wsms", "scaled"]
    net = network()
    twin, plan = convert_network(net, {"method": "scaled", "layers": ["stages.0.0"], "factor": 3})
    assert [c.name for c in plan.changes] == ["stages.0.0"]
    x = torch.rand(2, 1, 28, 28)
    plain, scaled = net.get_submodule("stages.0.0"), twin.get_submodule("stages.0.0")
    torch.testing.assert_close(scaled(x), 3 * plain(x))
    assert plan.conversion == my_methods.ScaledConvolutions(("stages.0.0",), 3)
    with pytest.raises(InputError, match="methods that can: .*scaled"):
        plan_conversion(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten()), "antialias")


def test_convert_records_it_and_its_checkpoint_comes_back(own, tmp_path):
    import my_methods

    method = my_methods.ScaledConvolutions(factor=3.0)
    torch.save(network().state_dict(), tmp_path / "w.pth")
    model, inputs = f"cnn_small@{tmp_path / 'w.pth'}", InputOptions(size=28)
    result = convert(model, method, inputs=inputs, out=tmp_path / "twin")
    again = load_checkpoint(result.path)
    assert again.record["recipe"]["model"]["convert"] == {
        "method": "scaled",
        "layers": ["*"],
        "factor": 3.0,
    }
    assert again.recipe.model.convert == method
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(again.model(x), result.network.eval()(x))
    del methods._METHODS["scaled"]
    with pytest.raises(InputError, match="known once its module is imported"):
        load_checkpoint(result.path)


def test_a_recipe_names_it(own, tmp_path, capsys):
    import my_methods

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"""
model:
  name: cnn_small
  convert: {{method: scaled, factor: 0.5}}
data: {{train: 60, validation: 20, test: 20}}
fit: {{epochs: 1}}
out: {tmp_path / "run"}
"""
    )
    assert main(["train", "--config", str(recipe)]) == 0
    trained = load_checkpoint(tmp_path / "run" / "weights.safetensors")
    assert trained.recipe.model.convert == my_methods.ScaledConvolutions(factor=0.5)
    assert trained.model.get_submodule("stages.0.0").factor == 0.5
    # The run's own recipe names it alike: the finished run is taken as it is.
    written = str(tmp_path / "run" / "config.yaml")
    assert main(["train", "--config", written, "--out", str(tmp_path / "run")]) == 0
    recipe.write_text(recipe.read_text().replace("factor", "facter"))
    assert main(["train", "--config", str(recipe)]) == 2
    assert "method 'scaled' has no facter" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["scaled", "my_methods:ScaledConvolutions"])
def test_the_command_line_takes_it_with_its_settings(own, tmp_path, capsys, word):
    if word == "scaled":
        import my_methods  # noqa: F401
    torch.save(network().state_dict(), tmp_path / "w.pth")
    words = ["convert", f"cnn_small@{tmp_path / 'w.pth'}", word, "--factor", "3", "--size", "28"]
    assert main([*words, "--layers", "stages.0*", "--out", str(tmp_path / "twin")]) == 0
    assert "1 layer changed: 1 × Conv2d → times 3." in capsys.readouterr().out
    record = json.loads((tmp_path / "twin" / "conversion.json").read_text())["conversion"]
    assert record == {"method": "scaled", "layers": ["stages.0*"], "factor": 3.0}
    with pytest.raises(SystemExit):
        main(["convert", "cnn_small", word, "--help"])
    assert "by how much" in capsys.readouterr().out
    assert main([*words, "--reduction", "max"]) == 2
    assert "method 'scaled' has no reduction; it belongs to pyramid" in capsys.readouterr().err


def test_an_installed_package_declares_it(own):
    info = own / "my_methods-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[nearfar.conversion_methods]\nscaled = my_methods:ScaledConvolutions\n"
    )
    assert "my_methods" not in sys.modules
    assert as_method("scaled").as_dict() == {"method": "scaled", "layers": ("*",), "factor": 2.0}


def test_a_record_imports_nothing(own, tmp_path):
    with pytest.raises(InputError, match="method must be one of"):
        as_method({"method": "my_methods:ScaledConvolutions"})
    with pytest.raises(InputError, match="method must be one of"):
        ModelSpec(convert={"method": "my_methods:ScaledConvolutions"})
    assert "my_methods" not in sys.modules


def test_an_older_record_with_the_settings_of_all_methods_is_read():
    record = {
        "method": "si",
        "layers": ["*"],
        "scales": [0.5, 1],
        "reduction": None,
        "stages": None,
    }
    assert as_method(record).as_dict() == {"method": "si", "layers": ("*",), "scales": (0.5, 1.0)}
    spec = ModelSpec(convert=record)
    recipe = Recipe(spec, DATA, FitSpec(), 0, TrainerSpec())
    assert Recipe.from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe


def test_a_whole_network_method_needs_a_plan_alone(monkeypatch):
    from nearfar.conversion import Change, Plan

    monkeypatch.setattr(methods, "_METHODS", dict(methods._METHODS))

    @register_method("softened")
    @dataclass(frozen=True)
    class Softened(ConversionMethod):
        temperature: float

        def plan(self, network, side=None):
            make = lambda old: nn.Sequential(old, Divided(self.temperature))  # noqa: E731
            return Plan(self, (Change("", "network", "softer", make),))

    class Divided(nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by = by

        def forward(self, x):
            return x / self.by

    net, x = network(), torch.rand(2, 1, 28, 28)
    twin, _ = convert_network(net, Softened(4.0))
    torch.testing.assert_close(twin(x), net(x) / 4)
    with pytest.raises(InputError, match="'softened' cannot be set so: .*temperature"):
        as_method("softened")


def test_what_is_no_method_is_refused(monkeypatch):
    monkeypatch.setattr(methods, "_METHODS", dict(methods._METHODS))

    class NoDataclass(LayerMethod):
        pass

    @dataclass(frozen=True)
    class Other(LayerMethod):
        pass

    for cls in (NoDataclass, SimpleNamespace):
        with pytest.raises(InputError, match="is a frozen dataclass derived from ConversionMethod"):
            register_method("new")(cls)
    with pytest.raises(InputError, match="'si' is registered already, by nearfar.conversion.si"):
        register_method("si")(Other)
    for word, message in (
        ("nowhere:Method", "no conversion method can be imported as 'nowhere:Method'"),
        ("json:JSONDecoder", "json:JSONDecoder is no registered conversion method"),
    ):
        with pytest.raises(InputError, match=message):
            as_method(word, imports=True)
    for record in (3, {"scales": [1]}, {"method": 3}):
        with pytest.raises(InputError, match="a conversion is a method's name or a record"):
            as_method(record)


def test_a_layer_takes_over_what_its_own_kind_can_hold():
    class Gated(nn.Conv2d):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.gate = nn.Parameter(torch.ones(1))

    old = nn.Conv2d(1, 1, 3)
    with pytest.raises(InputError, match="hold no other tensors, got gate"):
        take_over(old, Gated(1, 1, 3))
    with pytest.raises(InputError, match="must be derived from it .* got another class"):
        take_over(old, nn.Conv1d(1, 1, 3))


def test_training_from_a_recipe_refuses_a_conversion_without_effect(tmp_path, monkeypatch):
    from nearfar.training import network as building

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 10, 3)

        def forward(self, x):
            return nn.functional.conv2d(x, self.conv.weight).mean((2, 3))

    monkeypatch.setattr(building, "create_model", lambda *_, **__: Functional())
    with pytest.raises(InputError, match="without calling conv"):
        train(ModelSpec(convert="si"), DATA, FitSpec(epochs=1), out=tmp_path / "run")
