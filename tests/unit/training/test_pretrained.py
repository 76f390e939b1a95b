"""Training may start from the weights of another one."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny_training import (
    assert_same_weights,
    make_configuration,
    make_recipe,
    make_store,
    read_weights,
    train_tiny,
)

from sparseunet.errors import RequestError, UnreadableFileError
from sparseunet.networks.build import build_network
from sparseunet.runs.record import require_same_run, run_identity
from sparseunet.training.pretrained import load_pretrained_weights


def make_network(*, seed=0, channels=1, outputs=2, **changes):
    torch.manual_seed(seed)
    plan = replace(make_configuration().network, **changes)
    return build_network(
        plan, num_input_channels=channels, num_outputs=outputs, deep_supervision=True
    )


def save(network, path):
    torch.save({"weights": network.state_dict(), "step": 5}, path)
    return path


def test_everything_but_the_heads_is_taken_over(tmp_path):
    given = save(make_network(seed=1, outputs=4), tmp_path / "given.pt")
    network, untouched = make_network(), make_network()
    load_pretrained_weights(network, given)
    weights, own = read_weights(given), untouched.state_dict()
    for name, tensor in network.state_dict().items():
        source = own if name.startswith("decoder.heads.") else weights
        assert torch.equal(tensor, source[name]), name


def test_other_channels_are_refused_with_the_numbers(tmp_path):
    given = save(make_network(channels=3), tmp_path / "given.pt")
    with pytest.raises(RequestError, match="on 3 input channels, this network takes 1"):
        load_pretrained_weights(make_network(), given)


def test_another_network_is_refused_with_the_tensors_that_differ(tmp_path):
    wider = save(make_network(features_per_stage=(4, 8, 32)), tmp_path / "wider.pt")
    with pytest.raises(RequestError) as refusal:
        load_pretrained_weights(make_network(), wider)
    told = str(refusal.value)
    assert "encoder.stages.2" in told
    assert "32×8×3×3×3 in the file, 16×8×3×3×3 in the network" in told
    assert "encoder.stages.0" not in told
    assert "take them over when planning" in told
    deeper = save(make_network(encoder_depths=(2, 1, 1)), tmp_path / "deeper.pt")
    with pytest.raises(RequestError, match="in the file, missing in the network"):
        load_pretrained_weights(make_network(), deeper)


@pytest.mark.parametrize("content", [{"network_weights": {}}, None])
def test_a_file_that_is_no_checkpoint_of_ours_is_refused(tmp_path, content):
    path = tmp_path / "given.pt"
    path.write_bytes(b"no checkpoint") if content is None else torch.save(content, path)
    with pytest.raises(UnreadableFileError, match=r"given\.pt"):
        load_pretrained_weights(make_network(), path)


def test_training_starts_from_them_and_goes_on_without_reading_them_again(tmp_path):
    store = make_store(tmp_path / "data")
    first = train_tiny(store, tmp_path / "first")
    options = {"recipe": make_recipe(learning_rate=1e-12), "pretrained": first}
    tuned = train_tiny(store, tmp_path / "tuned", **options)
    before, after = read_weights(first), read_weights(tuned)
    body = [name for name in before if not name.startswith("decoder.heads.")]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in body)
    assert not all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)

    class PulledPlugError(Exception):
        pass

    def pull_the_plug(log):
        if len(log) == 2:
            raise PulledPlugError

    cut = {"checkpoint_every_s": 0, **options}
    with pytest.raises(PulledPlugError):
        train_tiny(store, tmp_path / "cut", on_epoch=[pull_the_plug], **cut)
    assert_same_weights(after, read_weights(train_tiny(store, tmp_path / "cut", **cut)))


def test_they_make_another_run(tmp_path):
    identities = [
        run_identity(
            make_recipe(),
            make_configuration(),
            data_hash="d",
            time_budget_min=None,
            pretrained_hash=given,
        )
        for given in (None, "a", "b")
    ]
    for one in identities:
        for other in identities:
            if one is other:
                require_same_run(SimpleNamespace(identity=one), other, tmp_path)
            else:
                with pytest.raises(RequestError, match="another pretrained"):
                    require_same_run(SimpleNamespace(identity=one), other, tmp_path)
