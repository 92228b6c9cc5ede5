from __future__ import annotations

import pytest
import torch

from nearfar import load_checkpoint
from nearfar.conversion import PyramidEnsemble
from nearfar.data import DataSpec
from nearfar.errors import InputError
from nearfar.models import HierarchicalNet
from nearfar.training import FitSpec, ModelSpec, TrainerSpec, train, with_options


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    data = DataSpec(train=60, validation=20, test=20, normalize="standard")
    model = ModelSpec("hierarchical_cnn_small", {"scales": [0.5, 1.0], "reduction": "max"})
    fit = FitSpec(epochs=1, batch_size=20)
    return train(model, data, fit, TrainerSpec(), 0, out=tmp_path_factory.mktemp("run") / "run")


def test_more_scales_at_test_time_are_the_same_weights_at_more_scales(trained, tmp_path):
    more = with_options(trained.path, {"scales": [0.5, 0.7, 1.0]}, tmp_path / "more.safetensors")
    assert more.recipe.model.options == {"scales": [0.5, 0.7, 1.0], "reduction": "max"}
    assert more.record["best_epoch"] == trained.record["best_epoch"]
    trained_state, state = trained.model.state_dict(), more.model.state_dict()
    assert trained_state.keys() == state.keys()
    assert all(torch.equal(trained_state[name], state[name]) for name in trained_state)
    images = torch.rand(4, 1, 16, 16)
    mean, std = (torch.tensor(trained.record["normalisation"][k]) for k in ("mean", "std"))
    net = HierarchicalNet(trained.model.network.net, (0.5, 0.7, 1.0), "max").eval()
    with torch.no_grad():
        expected = net((images - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1))
        assert torch.equal(more.model(images), expected)
        assert not torch.equal(more.model(images), trained.model(images))
    assert "validation_loss" in trained.record
    assert not {"validation_loss", "validation_accuracy"} & more.record.keys()
    assert more.record["trained_options"] == trained.recipe.model.options
    again = with_options(more.path, {"scales": [1.0]}, tmp_path / "again.safetensors")
    assert again.record["trained_options"] == trained.recipe.model.options
    # What was trained stays what it was.
    assert load_checkpoint(trained.path).recipe == trained.recipe


def test_it_is_no_finished_run_of_its_recipe(trained, tmp_path):
    more = with_options(trained.path, {"scales": [0.5, 0.7]}, tmp_path / "weights.safetensors")
    recipe = more.recipe
    with pytest.raises(InputError, match="not empty and holds no unfinished run"):
        train(recipe.model, recipe.data, recipe.fit, recipe.trainer, recipe.seed, out=tmp_path)


def test_options_that_do_not_fit_are_refused_and_nothing_is_written(trained, tmp_path):
    out = tmp_path / "other.safetensors"
    with pytest.raises(
        InputError, match=r"with options \{'reduction': 'learned'\}: .*does not fit"
    ):
        with_options(trained.path, {"reduction": "learned"}, out)
    with pytest.raises(InputError, match="every scale must be positive"):
        with_options(trained.path, {"scales": [-1]}, out)
    with pytest.raises(InputError, match="colour"):
        with_options(trained.path, {"colour": 3}, out)
    with pytest.raises(InputError, match="by name, such as .* got 'scales'"):
        with_options(trained.path, "scales", out)
    assert not out.exists()


def test_scales_of_a_converted_network_are_its_conversions(tmp_path):
    data = DataSpec(train=60, validation=20, test=20)
    model = ModelSpec(convert=PyramidEnsemble(scales=(0.5, 1.0)))
    fit = FitSpec(epochs=1, batch_size=20)
    run = train(model, data, fit, TrainerSpec(), 0, out=tmp_path / "run")
    with pytest.raises(InputError, match="convert its original again with other ones"):
        with_options(run.path, {"scales": [1.0]}, tmp_path / "other.safetensors")


def test_no_file_is_written_over(trained):
    before = trained.path.read_bytes()
    with pytest.raises(InputError, match="exists; name a file that does not"):
        with_options(trained.path, {"scales": [1.0]}, trained.path)
    assert trained.path.read_bytes() == before
