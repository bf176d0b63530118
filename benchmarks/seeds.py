"""What a figure is over training runs that differ in nothing but their seed."""

import statistics
from collections.abc import Sequence


def over_seeds(values: Sequence[float]) -> dict[str, float]:
    """Number of seeds, mean, smallest and largest value; of several, the sample's standard deviation too."""
    found = {"seeds": len(values), "mean": statistics.fmean(values), "min": min(values), "max": max(values)}
    return found | ({"sd": statistics.stdev(values)} if len(values) > 1 else {})
