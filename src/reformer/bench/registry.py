"""All cases of `reformer bench`."""

from reformer.bench import kernel, op, training
from reformer.bench.case import Case

CASES: dict[str, Case] = {
    "op": op.make_case(),
    "kernel": kernel.make_case(),
    "short": training.make_short_case(),
    "training": training.make_case(),
    "million": training.make_million_case(),
}
