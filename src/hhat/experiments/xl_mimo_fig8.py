"""xl-mimo/fig8: what the central refinement adds to each local estimator."""

from hhat.bench.claims import LargerGain, Words
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import xl_mimo as xl

SOURCE = f"{xl.PAPER}, Fig. 8"
POINTS = grid({"snr_db": xl.SNRS})
QUICK = [f"{label}{after}" for label in ("sbl-em", "sbl-mrf", "sbl-gnn") for after in ("", "-literal", "-refined")]

EXPERIMENT = Experiment(
    name="xl-mimo/fig8",
    title="Overall NMSE before and after refinement against SNR",
    scenario=xl.near_field,
    methods=xl.BEFORE,
    profiles={
        "quick": Profile(POINTS, blocks=3, block_size=xl.BLOCK, methods=QUICK),
        "full": Profile(POINTS, blocks=xl.PAPER_BLOCKS, block_size=xl.BLOCK, until=xl.UNTIL),
    },
    claims=(
        *(
            LargerGain(
                "refinement gains more behind StdSBL and PC-SBL than behind VSP and UAMP-MRF",
                SOURCE,
                first=(f"{more}-literal", more),
                second=(f"{less}-literal", less),
            )
            for more in ("sbl-em", "sbl-pattern-coupled")
            for less in ("sbl-mrf", "uamp-mrf")
        ),
        Words("behind SBL-GNN the gain does not depend on the SNR", SOURCE, "how flat is not reported as a number"),
    ),
    note="Without a suffix: the units' posterior means put together, which changes no error. -literal: algorithm 2 as "
    "printed, which learns the noise of that estimate; -refined: the same with the noise that the units report. A gain "
    "is the difference of two rows.",
)
