"""What the three figures on drifting impairments claim of one metric each."""

from collections.abc import Sequence

from hhat.bench.claims import Claim, Ordering, Trend
from hhat.experiments.impairments import COMPENSATORS, FAMILY


def ahead_of_compensators(metric: str, source: str) -> Sequence[Claim]:
    """Each of the family against each compensator."""
    return [
        Ordering(f"{label} is ahead of both compensators", source, methods=(label, other), metric=metric)
        for label in FAMILY
        for other in COMPENSATORS
    ]


def order_within(metric: str, source: str) -> Sequence[Claim]:
    """Two time scales, then one, then none; the lead grows as the drift goes on."""
    words = "tracking with two time scales is ahead of tracking with one, that of a frozen model"
    return [
        Ordering(words, source, methods=FAMILY, metric=metric),
        *(
            Trend(
                f"the lead over {other} grows with time",
                source,
                method=FAMILY[0],
                against=other,
                over="slot",
                rises=True,
                metric=metric,
            )
            for other in FAMILY[1:]
        ),
    ]
