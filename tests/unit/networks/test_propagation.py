"""The network of learned propagation, and what its affinities carry."""

import torch

from sparseunet.networks.propagation import PropagationNetwork, carry


def test_affinity_is_the_softmax_over_the_window_and_nothing_outside_the_slice_takes_part() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, columns, radius = 11, 18, (2, 3)
    reference, target = torch.randn(2, 1, rows, columns, 5, generator=generator)
    values = torch.rand(1, rows, columns, 2, generator=generator)
    expected = torch.empty_like(values)
    for y in range(rows):
        for x in range(columns):
            window_y = torch.arange(max(0, y - 2), min(rows, y + 3))
            window_x = torch.arange(max(0, x - 3), min(columns, x + 4))
            near = (0, window_y[:, None], window_x)
            away = ((window_y[:, None] - y) / 2) ** 2 + ((window_x - x) / 3) ** 2
            weight = torch.softmax(
                (1.5 * reference[near] @ target[0, y, x] - 0.7 * away).ravel(), 0
            )
            expected[0, y, x] = weight @ values[near].reshape(-1, 2)
    carried = carry(
        values,
        reference_BYXC=reference,
        target_BYXC=target,
        radius=radius,
        sharpness=1.5,
        locality=0.7,
    )
    torch.testing.assert_close(carried, expected)


def test_what_is_the_same_everywhere_stays_the_same() -> None:
    features = torch.nn.functional.normalize(torch.randn(1, 9, 10, 4), dim=-1)
    values = torch.full((1, 9, 10, 1), 0.25)
    carried = carry(
        values,
        reference_BYXC=features,
        target_BYXC=features.flip(1),
        radius=(3, 3),
        sharpness=10.0,
        locality=1.0,
    )
    torch.testing.assert_close(carried, values)


def test_features_are_unit_vectors_of_every_pixel_whatever_the_size_and_learn() -> None:
    network = PropagationNetwork(num_channels=2, width=4, num_features=8, stride=2)
    slices = torch.rand(3, 2, 13, 17)
    features = network(slices)
    assert features.shape == (3, 13, 17, 8)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(3, 13, 17))
    carried = carry(
        slices[:1].permute(0, 2, 3, 1),
        reference_BYXC=features[:1],
        target_BYXC=features[1:2],
        radius=(4, 4),
        sharpness=network.log_sharpness.exp(),
        locality=network.log_locality.exp(),
    )
    carried.square().sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name
    assert network.stem[0].weight.grad.abs().sum() > 0


def test_brightness_alone_is_not_a_feature() -> None:
    network = PropagationNetwork(num_channels=1, width=4, num_features=8).eval()
    slices = torch.rand(1, 1, 16, 16) / 2
    torch.testing.assert_close(network(slices), network(slices + 0.25), atol=1e-4, rtol=0)
