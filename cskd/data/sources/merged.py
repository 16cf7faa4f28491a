"""Several datasets merged into one, for one network over all their classes. No pixel is copied."""

import hashlib
import json

import numpy as np

from cskd.data.store import Dataset, JoinedSplit


def merge(name: str, parts: dict[str, Dataset]) -> Dataset:
    """Return the dataset of all classes of the parts, in order, named ``<part>/<class>``.

    parts: opened datasets by the name of their domain. The test set is present if every part has it open.
    """
    datasets = parts.values()
    all_tested = all(part.test is not None for part in datasets)
    first_classes = np.cumsum([0, *(len(part.classes) for part in datasets)])[:-1].tolist()
    content = json.dumps([[domain, part.digest] for domain, part in parts.items()])
    return Dataset(
        name=name,
        classes=tuple(f"{domain}/{label}" for domain, part in parts.items() for label in part.classes),
        train=JoinedSplit([part.train for part in datasets], first_classes),
        test=JoinedSplit([part.test for part in datasets], first_classes) if all_tested else None,
        digest=hashlib.sha256(content.encode()).hexdigest(),
        complete=all(part.complete for part in datasets),
        source="; ".join(f"{domain}: {part.source}" for domain, part in parts.items()),
        short_side=min(part.short_side for part in datasets),
        domains=tuple(domain for domain, part in parts.items() for _ in part.classes),
    )
