"""xl-mimo/fig7a: the units' own estimates against SNR."""

from hhat.bench.claims import Ordering
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import xl_mimo as xl

SOURCE = f"{xl.PAPER}, Fig. 7(a)"
POINTS = grid({"snr_db": xl.SNRS})

EXPERIMENT = Experiment(
    name="xl-mimo/fig7a",
    title="NMSE of the units' own estimates against SNR, 16 pilot slots",
    scenario=xl.units,
    methods=xl.LOCAL,
    profiles={
        "quick": Profile(POINTS, blocks=5, block_size=xl.BLOCK),
        "full": Profile(POINTS, blocks=xl.PAPER_BLOCKS, block_size=xl.BLOCK, until=xl.UNTIL),
    },
    metrics=("nmse_db",),
    score=xl.score_units,
    claims=(
        Ordering("pattern-coupled SBL is ahead of standard SBL", SOURCE, methods=("sbl-pattern-coupled", "sbl-em")),
        Ordering("VSP is ahead of pattern-coupled SBL", SOURCE, methods=("sbl-mrf", "sbl-pattern-coupled")),
        Ordering("UAMP-MRF is ahead of pattern-coupled SBL", SOURCE, methods=("uamp-mrf", "sbl-pattern-coupled")),
        Ordering("SBL-GNN is ahead of VSP", SOURCE, methods=("sbl-gnn", "sbl-mrf")),
        Ordering("SBL-GNN is ahead of UAMP-MRF", SOURCE, methods=("sbl-gnn", "uamp-mrf")),
    ),
    note="One realisation is one channel: the mean over its four units. All know the noise level. sbl-mrf stands for "
    "VSP. The hyperparameters of the paper's methods are not known to us. sbl-gnn is trained on "
    "48,000 problems of the paper's million. engine/sparse-xl has more estimators.",
)
