"""xl-mimo/fig8: what the central refinement adds to each local estimator. Claims only."""

from hhat.bench.claims import Ordering, Words
from hhat.bench.experiment import Experiment
from hhat.experiments import xl_mimo as xl

SOURCE = f"{xl.PAPER}, Fig. 8"
GAIN = "refinement_gain_db"

EXPERIMENT = Experiment(
    name="xl-mimo/fig8",
    title="Overall NMSE before minus after refinement against SNR",
    metrics=(GAIN,),
    claims=(
        *(
            Ordering(
                "refinement gains more behind StdSBL and PC-SBL than behind VSP and UAMP-MRF",
                SOURCE,
                methods=(f"{more}-refined", f"{less}-refined"),
                metric=GAIN,
                higher_is_better=True,
            )
            for more in ("sbl-em", "sbl-pattern-coupled")
            for less in ("sbl-mrf", "uamp-mrf")
        ),
        Words("behind SBL-GNN the gain does not depend on the SNR", SOURCE, "how flat is not reported as a number"),
    ),
    waits_for=xl.REFINEMENT,
)
