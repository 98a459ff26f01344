"""isac/fig3: sensing against the probability of a false alarm."""

from hhat.bench.claims import Ordering, Words
from hhat.bench.experiment import Experiment, Profile, grid
from hhat.experiments import isac

SOURCE = f"{isac.PAPER}, Fig. 3"
LEARNED = ("loss-14", "loss-15")
POINTS = grid({"snr_db": (15.0,), "false_alarm": (1e-3, 1e-2, 1e-1)})
BLOCK = isac.TRAIN + isac.TEST

EXPERIMENT = Experiment(
    name="isac/fig3",
    title="Detection and position error against false alarms, 64 antennas, 256 subcarriers, 15 dB",
    scenario=isac.scenario,
    methods=isac.METHODS,
    profiles={
        "quick": Profile(POINTS, blocks=3, block_size=BLOCK, methods=("known", "ones", "default")),
        "full": Profile(POINTS, blocks=100, block_size=BLOCK),
    },
    metrics=isac.METRICS,
    example=False,
    claims=(
        *(
            Ordering(
                "without calibration fewer targets are detected",
                SOURCE,
                methods=(label, "ones"),
                metric="detection_probability",
                higher_is_better=True,
            )
            for label in ("known", *LEARNED)
        ),
        *(
            Ordering(
                "without calibration positions are worse", SOURCE, methods=(label, "ones"), metric="position_rmse_m"
            )
            for label in ("known", *LEARNED)
        ),
        Words(
            "calibration by either loss, of its eqs. (14) and (15), gives nearly the same, close to known gains and "
            "phases",
            SOURCE,
            "'nearly' and 'close' are not numbers",
        ),
    ),
    note="One block is one array, 16,384 snapshots to calibrate and 12,288 others to search, half of them with a "
    "target; n counts arrays, intervals are over them (Student's t). Thresholds are empirical: each array and "
    "row has its own, from the empty ones of the snapshots searched; closed_form_false_alarm is what the closed "
    "form would let through. Grid search of 100 x 100, refined. RMSE: root of the mean over arrays of the mean "
    "square over detected targets; in cell: within 0.03 in sin angle and 1.5 m. SNR: of one target, fully "
    "integrated over antennas and subcarriers. loss-14, loss-15: of the paper, 400 steps of 512 snapshots, unit "
    "noise, not projected; the same projected beside them. default is what hhat.calibrate takes.",
)
