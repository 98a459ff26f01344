"""What `auto` gains and loses for two arrays of 16 x 64, and how often it says "none of these", on the same channels.

    python benchmarks/none_of_these.py [--channels 30] [--classes A,B,C,D,E,rB,rC,white,sparse0.1,uma]

A..E: CDL between arrays that face each other; r?: rotated; v?: vertical; white: CN(0, 1); sparse?: `sparse-angular`
with that share active; uma: 3GPP UMa by Sionna (3.5 GHz, one power per channel, needs it installed). Pilots: the
block of `cdl`. SNR: num_tx_ant / noise_var. NMSE in dB (mean of ratios): the mixture of exact covariances, `oamp` with
the pattern-coupled prior, `auto`; then the share called unknown by p < 1e-3 under given scale, and by `auto`.
"""

import argparse

import torch

import hhat
from hhat.methods.auto import Auto
from hhat.methods.covariance_mixture import CovarianceMixture
from hhat.ops import Dense, Identity, Kron
from hhat.priors.cdl_experts import cdl_experts
from hhat.random import complex_normal, generator
from hhat.scenarios.cdl import Cdl
from hhat.types import Observation

SHARES, SNRS_DB = (0.3, 0.6), (0.0, 10.0, 20.0, 30.0)


def channels(kind: str, n: int) -> torch.Tensor:
    gen = generator("h4b", kind)
    if kind in tuple("ABCDE"):
        return Cdl(profile=kind).channels(n, gen)
    if kind[0] in "rv" and kind[1:] in tuple("ABCDE"):
        turned = {"geometry": "rotated"} if kind[0] == "r" else {"axis": "vertical"}
        return Cdl(profile=kind[1], **turned).channels(n, gen)
    if kind == "white":
        return complex_normal((n, 16, 64), gen)
    if kind.startswith("sparse"):
        return hhat.scenario("sparse-angular", active=float(kind[6:])).draw(n, gen).truth.h
    if kind == "uma":
        return uma(n)
    raise ValueError(f"classes: unknown '{kind}'")


def uma(n: int, seed: int = 7) -> torch.Tensor:
    from sionna.phy import config
    from sionna.phy.channel import gen_single_sector_topology, tr38901

    config.seed = seed

    def line(count: int) -> object:
        half = {"element_horizontal_spacing": 0.5, "element_vertical_spacing": 0.5}
        kind = {"polarization": "single", "polarization_type": "V", "antenna_pattern": "omni", "precision": "single"}
        size = {"num_rows_per_panel": 1, "num_cols_per_panel": count, "carrier_frequency": 3.5e9, "device": "cpu"}
        return tr38901.PanelArray(**size, **half, **kind)

    plain = {"enable_pathloss": False, "enable_shadow_fading": False, "precision": "single", "device": "cpu"}
    ends = {"ut_array": line(16), "bs_array": line(64), "direction": "downlink", "o2i_model": "low"}
    model = tr38901.UMa(carrier_frequency=3.5e9, **ends, **plain)
    found = []
    for _ in range(0, n, 10):
        model.set_topology(*gen_single_sector_topology(10, 1, "uma", precision="single", device="cpu"))
        gains, _ = model(num_time_samples=1, sampling_frequency=1.0)
        found.append(gains.sum(-2)[..., 0][:, 0, :, 0, :])
    h = torch.cat(found)[:n]
    return h / h.abs().square().mean((1, 2), keepdim=True).sqrt()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=30)
    parser.add_argument("--classes", default="A,B,C,D,E,rB,rC,white,sparse0.1,uma")
    given = parser.parse_args()
    torch.set_num_threads(1)
    mixture, coupled, auto = CovarianceMixture(cdl_experts()), Auto(profiles=False), Auto()
    scenes = [[Cdl(pilot_ratio=share, snr_db=snr) for snr in SNRS_DB] for share in SHARES]
    ops = [Kron(Identity((16,)), Dense(row[0].pilot_matrix().mT.contiguous())) for row in scenes]
    print("channels   pilots  SNR  mixture  coupled     auto  unknown by p  by auto")
    for kind in given.classes.split(","):
        h = channels(kind, given.channels)
        for share, op, row in zip(SHARES, ops, scenes, strict=True):
            for snr, scene in zip(SNRS_DB, row, strict=True):
                y = op.apply(h)
                y = y + complex_normal(
                    tuple(y.shape), generator("h4bn", kind, share, int(snr)), y.dtype, scene.noise_var()
                )
                obs = Observation(y, op, scene.noise_var(), ("rx_ant", "tx_ant"))
                found = [hhat.solve(method, obs) for method in (mixture, coupled, auto)]
                nmse = "".join(f"{hhat.nmse_db(est, h):9.2f}" for est in found)
                unknown = [float((found[i].info["expert"] < 0).double().mean()) for i in (0, 2)]
                print(f"{kind:10s} {share:6.1f} {snr:4.0f}{nmse} {unknown[0]:13.3f} {unknown[1]:8.3f}", flush=True)


if __name__ == "__main__":
    main()
