"""engine/sparse-xl: the local estimators of a near-field XL array's units, from the same combined pilots."""

from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import xl_mimo as xl

EXPERIMENT = Experiment(
    name="engine/sparse-xl",
    title="Local units of a near-field XL array: NMSE against SNR, 32 antennas, 16 tones, 16 beams a unit",
    scenario=xl.units,
    methods={
        "sbl-em": xl.local(xl.sbl_em),
        "sbl-em-converged": xl.local(xl.sbl_em_converged),
        "sbl-mackay": xl.local(xl.sbl_mackay),
        "sbl-mrf": xl.local(xl.sbl_mrf),
        "sbl-pattern-coupled": xl.local(xl.sbl_pattern_coupled),
        "uamp-sbl": xl.local(xl.uamp_sbl),
        "uamp-mrf": xl.local(xl.uamp_mrf),
        "pcsbl-gamp": xl.local(xl.gamp_pattern_coupled),
        "oamp-pattern-coupled": xl.local(xl.oamp_pattern_coupled),
        "oamp-gauss-mixture": xl.local(xl.oamp_mixture),
        "oamp-ising": xl.local(xl.oamp_ising),
    },
    profiles={
        "quick": Profile(grid({"snr_db": (0.0, 10.0)}), blocks=1, block_size=10),
        "full": Profile(grid({"snr_db": (0.0, 5.0, 10.0, 15.0)}), blocks=20, block_size=10),
    },
    note="One realisation is one unit of one channel, four units a channel; every block has its own combiners. All "
    "know the noise level. sbl-em stops after 20 steps, sbl-em-converged after 200.",
)
