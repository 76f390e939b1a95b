"""What fits into a time is measured, valid, and never more than was planned."""

import pytest
import torch

from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.networks.build import build_network
from sparseunet.planning.memory import count_feature_map_elements, shrinking_candidates
from sparseunet.planning.overrides import smaller_patches, with_base_features
from sparseunet.planning.plan import Configuration
from sparseunet.planning.planners import PLANNERS
from sparseunet.planning.topology import choose_topology
from sparseunet.training.recipe import Recipe
from sparseunet.training.step import Hardware
from sparseunet.training.time_budget import BudgetedTraining, fit_into_budget

LABELS = LabelSchema(classes={"background": 0, "organ": 1}, regions={})


def _planned(features: int, *, shape=(8, 48, 48), batch_size: int = 3) -> Configuration:
    spacing_mm = (5.0, 1.0, 1.0)
    *_, chosen = shrinking_candidates(spacing_mm, shape, planner=PLANNERS["default"], num_outputs=2)
    planned = Configuration(
        name="3d_fullres",
        data_identifier="x",
        batch_size=batch_size,
        patch_size=chosen.patch_size,
        median_shape=shape,
        spacing_mm=spacing_mm,
        normalization=("zscore",),
        use_mask_for_norm=(False,),
        network=chosen.network,
        batch_dice=False,
    )
    return with_base_features(planned, features)


@pytest.fixture(autouse=True)
def _steps_take_a_known_time(monkeypatch):
    """Let a step take 10 ns per element of the feature maps, on idle and on busy machines."""

    def step_s(configuration, labels, *_):
        elements = count_feature_map_elements(
            configuration.network, configuration.patch_size, num_outputs=labels.num_outputs
        )
        return 1e-8 * configuration.batch_size * elements

    monkeypatch.setattr("sparseunet.training.time_budget.measure_step_s", step_s)


def _fit(planned: Configuration, *, budget_s: float) -> BudgetedTraining:
    return fit_into_budget(
        planned,
        labels=LABELS,
        recipe=Recipe(),
        hardware=Hardware(device=torch.device("cpu"), dtype=None, num_workers=0),
        budget_s=budget_s,
    )


def test_with_time_to_spare_the_planned_network_is_trained():
    planned = _planned(8)
    found = _fit(planned, budget_s=1e7)
    assert found.configuration == planned
    assert found.iterations == pytest.approx(0.85e7 / found.step_s, rel=0.01)


def test_where_the_narrowest_network_is_too_slow_its_patch_shrinks_with_a_network_that_fits_it():
    planned = _planned(16)
    found = _fit(planned, budget_s=8)
    smallest = [*smaller_patches(planned)][-1]
    configuration = found.configuration
    assert configuration.patch_size == smallest.patch_size == (8, 32, 32)
    assert configuration.network.features_per_stage[0] == 8
    assert configuration.batch_size == 2
    topology = choose_topology(configuration.spacing_mm, configuration.patch_size)
    assert configuration.network.strides == topology.strides
    network = build_network(
        configuration.network, num_input_channels=1, num_outputs=2, deep_supervision=False
    )
    image_BCZYX = torch.zeros(1, 1, *configuration.patch_size)
    assert network(image_BCZYX)[0].shape[-3:] == image_BCZYX.shape[-3:]
    assert found.iterations * found.step_s <= 0.85 * 8


def test_a_time_in_which_nothing_can_be_trained_is_refused():
    with pytest.raises(RequestError, match="too short"):
        _fit(_planned(8), budget_s=0.01)
