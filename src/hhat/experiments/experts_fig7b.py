"""experts/fig7b: how many outer passes the mixture of experts needs. Claims only."""

from hhat.bench.claims import Trend, Words
from hhat.bench.experiment import Experiment
from hhat.experiments import experts

SOURCE = f"{experts.PAPER}, Fig. 7(b)"

EXPERIMENT = Experiment(
    name="experts/fig7b",
    title="NMSE against outer passes at several SNRs",
    claims=(
        Trend("the NMSE falls from pass to pass", SOURCE, method=experts.PROPOSED, over="passes"),
        Words("most of it within the first few passes, sooner at high SNR", SOURCE, "'few' is not a number"),
    ),
    waits_for=experts.WAITS_FOR,
)
