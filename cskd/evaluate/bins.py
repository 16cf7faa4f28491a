"""The bins of a reliability diagram."""

from dataclasses import dataclass

import numpy as np

DIAGRAM_BINS = 10  # as in the paper's figure 5; the ECE has 20


@dataclass(frozen=True)
class ReliabilityBins:
    """Equal-width bins of top-label confidence: arrays of length ``bins``. The means of empty bins are NaN."""

    lower: np.ndarray
    upper: np.ndarray
    count: np.ndarray
    confidence: np.ndarray  # mean confidence of the samples in the bin
    accuracy: np.ndarray  # fraction of them that are correct

    @property
    def gap(self) -> np.ndarray:
        """Accuracy minus confidence; negative if the network is over-confident."""
        return self.accuracy - self.confidence
