"""What papers claim of a run, held against its rows: a table of verdicts, and how many of each over all runs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from hhat.bench.claims import CONFIRMED, NOT_CONFIRMED, NOT_TESTABLE, Claim, Verdict, Words, restored
from hhat.bench.report import page
from hhat.bench.report.words import count
from hhat.bench.summary import Group

ICONS = {CONFIRMED: ("✓", "yes"), NOT_CONFIRMED: ("✗", "no"), NOT_TESTABLE: ("○", "open")}
"""Sign and style of a verdict; the word always stands beside it"""


class Judged(NamedTuple):
    claim: Claim
    verdict: Verdict


def judged(recipe: Mapping[str, Any], groups: Sequence[Group]) -> list[Judged]:
    """The claims a run was stored with, each with its verdict on the run's counted blocks."""
    claims = [_restored(description) for description in recipe.get("claims") or ()]
    if recipe.get("claim"):
        claims.append(Words(str(recipe["claim"]), "", "stored as a sentence only; run the experiment again"))
    return [Judged(claim, claim.check(groups)) for claim in claims]


def table(found: Sequence[Judged]) -> str:
    body = [[claim.text, claim.source, verdict_of(said.verdict), said.measured] for claim, said in found]
    caption = "What is claimed of this experiment, and what this run says of it, by 95 % intervals."
    return page.table(["claim", "source", "verdict", "measurement"], body, caption, words=(0, 1, 2, 3))


def verdict_of(verdict: str) -> page.Html:
    icon, style = ICONS[verdict]
    return page.Html(
        f'<span class="verdict {style}"><span aria-hidden="true">{icon}</span> {page.text(verdict)}</span>'
    )


def tally(found: Iterable[Judged]) -> Counter[str]:
    return Counter(said.verdict for _, said in found)


def tally_in_words(counts: Mapping[str, int]) -> str:
    """3 claims: 1 confirmed, 0 not confirmed, 2 not testable."""
    each = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in ICONS)
    return f"{count(sum(counts.values()), 'claim')}: {each}"


def _restored(description: Mapping[str, Any]) -> Claim:
    try:
        return restored(description)
    except (ValueError, TypeError) as trouble:  # stored by a version with other kinds of claims
        said = {name: str(description.get(name, "")) for name in ("text", "source")}
        return Words(**said, why=f"cannot be read by this version: {trouble}")
