"""The order in which parts of the band are sounded."""

import pytest
import torch

from hhat.nr.hopping import hop_index


def test_four_hops_go_in_the_standards_order():
    assert hop_index(8, 4, 6, "nr").tolist() == [[0, 1], [4, 5], [2, 3], [6, 7], [0, 1], [4, 5]]
    assert hop_index(8, 4, 5, "sequential").tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [0, 1]]


@pytest.mark.parametrize("hops", range(1, 18))
@pytest.mark.parametrize("order", ["sequential", "nr"])
def test_a_cycle_sounds_every_tone_once(hops, order):
    index = hop_index(3 * hops, hops, 2 * hops, order)
    assert index.shape == (2 * hops, 3)
    assert torch.equal(index[:hops], index[hops:])
    assert torch.equal(index[:hops].flatten().sort()[0], torch.arange(3 * hops))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ((10, 4, 3, "nr"), "divide"),
        ((10, 0, 3, "nr"), "hops"),
        ((10, 2, 0, "nr"), "num_symbols"),
        ((4, 2, 2, "x"), "order"),
    ],
)
def test_wrong_calls_say_what_was_expected(call, told):
    with pytest.raises(ValueError, match=told):
        hop_index(*call)
