from __future__ import annotations

import json

import huggingface_hub
import pytest
import torch
from huggingface_hub import HfApi, ModelCard

import nearfar
from nearfar.classifiers import InputSpec, hub_files, load_classifier
from nearfar.data import DataSpec, ScaleProtocol
from nearfar.deploy import HubClassifier, from_pretrained, push_to_hub, save_pretrained
from nearfar.errors import InputError
from nearfar.models import create_model
from nearfar.training import FitSpec, ModelSpec, TrainerSpec
from nearfar.training.checkpoint import save_checkpoint
from nearfar.training.specs import Recipe


@pytest.fixture
def checkpoint(tmp_path):
    network = create_model("cnn_small", num_classes=3, in_chans=1)
    protocol = ScaleProtocol(canvas=24, content=12, train_scales=(0.5, 1))
    recipe = Recipe(
        ModelSpec("cnn_small"),
        DataSpec(source="digits", protocol=protocol),
        FitSpec(),
        seed=0,
        trainer=TrainerSpec(),
    )
    path = tmp_path / "run" / "weights.safetensors"
    record = {
        "recipe": recipe.as_dict(),
        "in_chans": 1,
        "class_names": ["nought", "one", "two"],
        "normalisation": {"mean": [0.2], "std": [0.3]},
        "validation_accuracy": 0.9312,
        "validation_loss": 0.25,
        "best_epoch": 7,
        "nearfar": "0.1.0",
    }
    save_checkpoint(path, network, record)
    return path


@pytest.fixture
def no_network(monkeypatch):
    """The hub's client, with nobody to talk to."""

    def refuse(*arguments, **options):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    return refuse


def test_a_folder_holds_weights_card_and_page(checkpoint, tmp_path):
    folder = save_pretrained(checkpoint, tmp_path / "a" / "digits", license="mit")
    assert {p.name for p in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    assert (folder / "model.safetensors").read_bytes() == checkpoint.read_bytes()
    input_spec = InputSpec.from_json((folder / "config.json").read_text(), "config.json")
    assert input_spec.as_json() == load_classifier(checkpoint).input_spec.as_json()
    page = ModelCard.load(folder / "README.md")
    assert page.data.library_name == "nearfar"
    assert page.data.pipeline_tag == "image-classification"
    assert page.data.license == "mit"
    for line in (
        "| network | `cnn_small` |",
        "| images | 24×24, channels: 1 |",
        "| classes | 3: nought, one, two |",
        "| data | `digits` |",
        "| scales in training | 0.5, 1 |",
        "| validation accuracy | 93.1 % |",
        "| validation loss | 0.25 |",
        "| epoch | 7 |",
        "| made with | nearfar 0.1.0 |",
        f"nearfar predict {folder} photo.jpg",
    ):
        assert line in page.content, line
    parameters = sum(
        p.numel() for p in create_model("cnn_small", num_classes=3, in_chans=1).parameters()
    )
    assert f"| parameters | {parameters:,} |" in page.content


def test_what_a_record_does_not_say_is_left_out(checkpoint, tmp_path):
    found = nearfar.load_checkpoint(checkpoint)
    record = {k: v for k, v in found.record.items() if not k.startswith(("validation", "best"))}
    save_checkpoint(tmp_path / "w.safetensors", found.model.network, record)
    folder = save_pretrained(tmp_path / "w.safetensors", tmp_path / "out")
    page = (folder / "README.md").read_text()
    assert "validation" not in page
    assert "epoch" not in page
    assert "license" not in page


def test_a_page_of_one_s_own_is_kept(checkpoint, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("mine")
    folder = save_pretrained(checkpoint, tmp_path / "out")
    assert (folder / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    "opening",
    [
        lambda folder: from_pretrained(folder),
        lambda folder: load_classifier(str(folder)),
        lambda folder: HubClassifier.from_pretrained(folder).classifier,
        lambda folder: HubClassifier.from_pretrained(str(folder)).classifier,
    ],
)
def test_a_folder_is_opened(checkpoint, tmp_path, opening):
    before = load_classifier(checkpoint)
    after = opening(save_pretrained(checkpoint, tmp_path / "out"))
    images = torch.rand(3, 1, 24, 24)
    assert torch.equal(after.predict(images), before.predict(images))
    assert after.input_spec == before.input_spec
    assert after.checkpoint.record == before.checkpoint.record


def test_pushing_sends_the_same_files_in_one_commit(checkpoint, tmp_path, monkeypatch):
    made, sent = {}, {}

    def create_repo(self, **options):
        made.update(options, token=self.token)
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{options['repo_id']}")

    def upload_folder(self, *, folder_path, **options):
        sent.update({p.name: p.read_bytes() for p in folder_path.iterdir()})
        sent["options"] = options
        return "https://huggingface.co/me/digits/commit/1"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    address = push_to_hub(
        checkpoint, "me/digits", private=True, token="t", branch="next", license="mit"
    )
    assert address == "https://huggingface.co/me/digits/commit/1"
    assert made == {"repo_id": "me/digits", "private": True, "exist_ok": True, "token": "t"}
    options = sent.pop("options")
    assert (options["repo_id"], options["revision"]) == ("me/digits", "next")
    assert "nearfar" in options["commit_message"]
    assert sent.keys() == {"model.safetensors", "config.json", "README.md"}
    assert sent["model.safetensors"] == checkpoint.read_bytes()
    assert json.loads(sent["config.json"])["class_names"] == ["nought", "one", "two"]
    assert b"nearfar predict hub:me/digits photo.jpg" in sent["README.md"]
    assert b"license: mit" in sent["README.md"]


@pytest.mark.parametrize(
    ("opening", "revision"),
    [
        (lambda: load_classifier("hub:me/digits"), None),
        (lambda: load_classifier("hub:me/digits@v2"), "v2"),
        (lambda: from_pretrained("me/digits", revision="v3"), "v3"),
    ],
)
def test_a_repository_is_fetched(checkpoint, monkeypatch, opening, revision):
    asked = []

    def fetch(name, file, **options):
        asked.append((name, file, options["revision"]))
        return str(checkpoint)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    assert opening().input_spec.class_names == ("nought", "one", "two")
    assert asked == [("me/digits", "model.safetensors", revision)]


def test_weights_without_a_record_are_refused(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="without nearfar's record"):
        load_classifier(tmp_path)


def test_settings_that_the_weights_have_settled_are_refused(checkpoint, tmp_path):
    folder = save_pretrained(checkpoint, tmp_path / "out")
    with pytest.raises(InputError, match="says itself how images are normalised"):
        load_classifier(folder, size=32)
    with pytest.raises(InputError, match="leave out colour"):
        HubClassifier.from_pretrained(folder, colour="red")


def test_a_hub_out_of_reach_is_bad_input(no_network, checkpoint, monkeypatch):
    message = r"model\.safetensors of hub:me/digits cannot be fetched: no route to the hub; mend"
    with pytest.raises(InputError, match=message):
        load_classifier("hub:me/digits")
    monkeypatch.setattr(HfApi, "create_repo", no_network)
    with pytest.raises(InputError, match="me/digits on the hub cannot be written: no route"):
        push_to_hub(checkpoint, "me/digits")


def test_a_bad_name_is_bad_input(checkpoint):
    with pytest.raises(InputError, match=r"hub:a/b/c/d cannot be fetched: .*; mend the name"):
        load_classifier("hub:a/b/c/d")
    with pytest.raises(InputError, match="cannot be written: "):
        push_to_hub(checkpoint, "a/b/c/d")


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"there is no model\.safetensors in"):
        from_pretrained(tmp_path)


def test_only_checkpoints_are_saved(tmp_path):
    with pytest.raises(InputError, match="no checkpoint at"):
        save_pretrained(tmp_path / "nothing.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_is_bad_input(checkpoint, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        save_pretrained(checkpoint, tmp_path / "out")


def test_reading_does_not_need_the_writing_part():
    assert hub_files.HUB == "hub:"
    assert nearfar.from_pretrained is from_pretrained


def test_weights_of_somebody_else_s_are_not_written_over(checkpoint, tmp_path):
    theirs = tmp_path / "theirs" / "model.safetensors"
    theirs.parent.mkdir()
    theirs.write_bytes(b"theirs")
    with pytest.raises(InputError, match="holds weights that are not nearfar's"):
        save_pretrained(checkpoint, theirs.parent)
    assert theirs.read_bytes() == b"theirs"
