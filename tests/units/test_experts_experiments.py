"""What the experiments on experts add to the library's methods: known means, sizes, curves."""

import dataclasses
import math

import pytest
import torch

import hhat
from hhat.experiments import experts, experts_fig7a, experts_gauss, experts_nets, experts_table2
from hhat.priors.diffusion import names
from hhat.random import generator


@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
def test_the_known_mean_is_that_of_the_channels_and_the_rest_of_their_covariance(axis):
    prior = experts_gauss._centred("D", 2, 4, axis, "fixed")
    scene = hhat.scenario("cdl", profile="D", num_rx_ant=2, num_tx_ant=4, axis=axis, los_phase="constant")
    root = prior.basis.dense().reshape(8, 9)
    mean = root @ prior.mean.to(root)
    second = (root * prior.var) @ root.mH + mean[:, None] * mean.conj()
    torch.testing.assert_close(second, scene.covariance(), rtol=0, atol=2e-5)
    drawn = scene.channels(2000, generator("mean")).mean(0).flatten()
    assert float((mean - drawn).abs().max()) < 5 * math.sqrt(0.112 / 2000)
    assert float(mean.abs().square().mean()) == pytest.approx(0.888, abs=0.002)


def test_a_point_says_geometry_and_phase_and_names_of_networks_follow():
    point = {"profile": "B", "snr_db": 10.0, "alpha": 0.3}
    fixed, turned = experts.scenario(point), experts.scenario({**point, "geometry": "rotated"})
    assert (fixed.geometry, fixed.axis, fixed.los_phase, fixed.num_pilots) == ("fixed", "horizontal", "random", 19)
    assert experts.weights(fixed, "B") == "cdl-b" and experts.weights(turned, "B") == "cdl-b-rotated"
    assert experts.weights(turned, "B", "B") == "cdl-b-scarce-rotated"
    assert experts.weights(fixed, "ABCD", "B") == "cdl-abcd-scarce-b"
    constant = experts.scenario({**point, "profile": "D", "los_phase": "constant"})
    assert experts.weights(constant, "A") == "cdl-a" and experts.weights(constant, "D") in names()


def test_sizes_are_those_of_the_networks_and_operations_follow_the_steps():
    scene = experts.scenario(experts_table2.POINT)
    assert experts_table2.trained(experts_nets.single(scene)) == 15211
    assert experts_table2.trained(experts_nets.paper(scene)) == 4 * 15211
    assert experts_table2.trained(hhat.method("rls")) == 0
    steps = [
        experts_table2.counted(
            lambda s, n=n: dataclasses.replace(experts_nets.single_sampled(s, "dmps"), max_steps=n), scene
        )
        for n in (2, 4)
    ]
    # a forward pass is 14 million real multiply-adds, 3.5 million complex ones
    assert 3.4e6 < (steps[1].operations - steps[0].operations) / 2 < 4.5e6


def test_the_curve_is_what_the_card_recorded():
    curve = experts_fig7a.recorded("C")
    assert list(curve) == sorted(curve) and all(0 < loss.held_out < 1 for loss in curve.values())
    place = experts_fig7a.shipped("diffusion-cdl-c").card["curve"][-1]
    scene = experts_fig7a.curve({"profile": "C", "epoch": max(curve)})
    kept = experts_fig7a.held_out(scene).arrays(scene.draw(1, generator("curve")))
    assert 10 * math.log10(float(kept["loss"])) == pytest.approx(place["valid_db"], abs=1e-4)
