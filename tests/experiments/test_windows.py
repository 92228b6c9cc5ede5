import torch

from nearfar.data import DataSpec
from nearfar.experiments.tables.table import at_scales
from nearfar.training import FitSpec, ModelSpec, load_checkpoint, train


def test_a_net_is_measured_at_other_scales_than_it_learned_with(tmp_path):
    data = DataSpec(train=64, validation=40, test=40)
    model = ModelSpec("hierarchical_cnn_small", {"scales": [0.5, 1.0]})
    trained = train(model, data, FitSpec(epochs=1, batch_size=32), out=tmp_path)
    with at_scales(trained, None) as path:
        assert path == trained.path
    with at_scales(trained, [0.5, 0.7, 1.0]) as path:
        wider = load_checkpoint(path).model
    assert wider.scales == (0.5, 0.7, 1.0)
    for key, weight in trained.model.state_dict().items():
        assert torch.equal(weight, wider.state_dict()[key])
    assert not path.exists()
    assert load_checkpoint(trained.path).model.scales == (0.5, 1.0)
