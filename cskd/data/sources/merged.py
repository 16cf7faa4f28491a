"""Several datasets as one, for one network over all their classes. No pixel is copied."""

import hashlib
import json

import numpy as np

from cskd.data.store import Dataset, JoinedSplit


def merge(name: str, parts: dict[str, Dataset]) -> Dataset:
    """The dataset of all classes of the parts, in their order, called ``<part>/<class>``.

    parts: opened datasets by the name that their domain is to have. The test set is there if that of every part
    is open.
    """
    sets = parts.values()
    tested = all(part.test is not None for part in sets)
    first = np.cumsum([0, *(len(part.classes) for part in sets)])[:-1].tolist()  # each part's first class
    content = json.dumps([[domain, part.digest] for domain, part in parts.items()])
    return Dataset(
        name=name,
        classes=tuple(f"{domain}/{label}" for domain, part in parts.items() for label in part.classes),
        train=JoinedSplit([part.train for part in sets], first),
        test=JoinedSplit([part.test for part in sets], first) if tested else None,
        digest=hashlib.sha256(content.encode()).hexdigest(),
        complete=all(part.complete for part in sets),
        source="; ".join(f"{domain}: {part.source}" for domain, part in parts.items()),
        short_side=min(part.short_side for part in sets),  # whether images are large enough is for every part to meet
        domains=tuple(domain for domain, part in parts.items() for _ in part.classes),
    )
