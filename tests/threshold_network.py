"""Weights set by hand, which make the network of `write_run` a threshold on intensities."""

from pathlib import Path

import torch

from sparseunet.networks.checkpoint import read_checkpoint
from sparseunet.networks.trained_model import load_network
from sparseunet.runs.load import load_trained_model
from sparseunet.workspace import CHECKPOINT_FINAL, fold_folder


def make_threshold(run: Path, *, one: float, two: float) -> None:
    """Let fold 0 say class 1 above `one` and class 2 above `two` times the standard deviation.

    Intensities are normalised in every patch; the path through lower resolutions is shut.
    """
    model = load_trained_model(run, [0])
    network = load_network(model, model.checkpoints[0])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        middle = (slice(None),) + (1,) * model.configuration.dimensions
        encoder, decoder = network.encoder.stages[0][0], network.decoder.stages[0][0]
        encoder.conv.weight[0][middle] = 1
        num_features = encoder.conv.weight.shape[0]
        decoder.conv.weight[0, num_features][middle[1:]] = 1  # the skip connection's first feature
        for block in (encoder, decoder):
            block.norm.weight[0] = 1
            block.activation.negative_slope = 1.0
        head = network.decoder.heads[0]
        # Above `one`, x - one > 0; above `two`, 2 (x - (one + two) / 2) > x - one.
        head.weight[1, 0], head.bias[1] = 1, -one
        head.weight[2, 0], head.bias[2] = 2, -(one + two)
    path = fold_folder(run, 0) / CHECKPOINT_FINAL
    content = read_checkpoint(path)
    torch.save(content | {"weights": network.state_dict()}, path)
