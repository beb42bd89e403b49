"""What was changed in a study's claims after results were there, as ``claims.json`` and the ledger tell it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.registered import changes, digest, registered
from search_spaces.spec import Spec
from study.results.ledger import Contents


@dataclass(frozen=True, kw_only=True)
class Amendment:
    """The changes, in words, and how many confirmed replicates were known before them. Empty where nothing changed.

    ``post_hoc`` names the claims that were made, or made anew, knowing results: they are exploratory, with no verdict.
    """

    texts: tuple[str, ...] = ()
    num_known: int = 0
    post_hoc: frozenset[str] = frozenset()

    @property
    def words(self) -> str:
        """``claims changed after 112 confirmed replicates: C4: margin was 0.01, now 0.02``; empty where nothing changed."""
        if not self.texts:
            return ""
        what = "claims changed" if self.post_hoc else "blocks added"
        return f"{what} after {self.num_known:,} confirmed replicates: {'; '.join(self.texts)}"


def amendment_of(spec: Spec, registration: Mapping[str, Any] | None, contents: Contents) -> Amendment:
    """How ``spec`` departs from what was registered; none without a registration or before the first confirmed replicate."""
    num_known = contents.num_confirmed
    if registration is None or not num_known:
        return Amendment()
    now = registered(spec)
    found = changes(registration["registered"], now)
    # a change that was run under is as old as its entry; one that is only read is made now
    told = [entry["num_confirmed"] for entry in registration["later"] if entry["digest"] == digest(now)]
    post_hoc = frozenset(claim for change in found for claim in change.claims)
    texts = tuple(change.text for change in found)
    return Amendment(texts=texts, num_known=(told or [num_known])[0], post_hoc=post_hoc)
