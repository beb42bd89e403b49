"""https://arxiv.org/abs/2203.08124 (Somepalli et al. 2022): samples that all networks of a study are shown, for pictures.

What is to be laid side by side must be the same in every cell and every replicate. A replicate's measuring seed differs from
the next one's, so these are drawn from the test split, which is fixed for the whole study, and from a setting alone.
"""

import torch
from torch import Tensor

from study.errors import UserError
from study.seeding import derive_seed

_MOST_TRIES = 1000


def fixed_generator(purpose: str, draw: int) -> torch.Generator:
    """A new CPU generator that depends on ``purpose`` and the setting ``draw`` only: the same for every network."""
    return torch.Generator().manual_seed(derive_seed("fixed_samples", purpose, draw))


def draw_triplets(labels: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """``num`` different triplets of samples of three different classes, as indices (T, 3) on the CPU, in order of drawing.

    Classes are drawn first, uniformly, then a sample of each. T is smaller where ``num`` and 1,000 draws bring no more. The
    first triplets do not depend on ``num``. ``labels`` (N,). Raises ``UserError`` for fewer than three classes.
    """
    labels = labels.detach().cpu()
    classes = torch.unique(labels)
    if len(classes) < 3:
        raise UserError(
            f"a plane goes through samples of three classes; these {len(labels)} images are of {len(classes)}"
        )
    members = [(labels == label).nonzero()[:, 0] for label in classes]
    found: dict[frozenset[int], list[int]] = {}
    for _ in range(num + _MOST_TRIES):
        chosen = torch.randperm(len(classes), generator=generator)[:3].tolist()
        triplet = [
            int(members[label][torch.randint(len(members[label]), (1,), generator=generator)]) for label in chosen
        ]
        found.setdefault(frozenset(triplet), triplet)
        if len(found) == num:
            break
    return torch.tensor(list(found.values()))
