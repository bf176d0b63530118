"""How often does a query see its nearest earlier match?

Compares, at several lengths T and for chunks of C = 64:

- "chunks": the paper's chunks, one chunk back, with 2T/C buckets;
- "bucket T/C": the bucket window, C ranks back, with T/C buckets;
- "bucket fixed": the same with the number of buckets that suits 2^20 keys;
- "bucket growing": the same with a resolution that grows with position, as causal models have it.

Every query that has an earlier match counts. A second table gives the growing resolution with other ways
to factorise its numbers of buckets. See `benchmarks.visibility_simulation` for the set-up.

Exit code 1 if the growing resolution sees less than the chunks, anywhere, by more than two standard
errors.
"""

import argparse
import functools
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.visibility_simulation import (
    CHUNK_LENGTH,
    HEAD_SIZE,
    MAX_NUM_BUCKETS,
    NUM_REPEATS,
    NUM_ROUNDS,
    Scheme,
    Visibility,
    advantage,
    factor_schemes,
    measure,
    num_trials,
    schemes,
)
from reformer.bench.machine import describe_machine
from reformer.training.atomic import write_text_atomically

LENGTHS = [1 << n for n in (10, 12, 14, 16, 17, 18, 20)]
FACTOR_LENGTHS = [1 << n for n in (14, 16, 17)]  # beyond, unfactorised hashing takes minutes
TOLERANCE = 2  # standard errors
COLOURS = ("#666666", "#56b4e9", "#e69f00", "#0072b2")
SETTINGS = {
    "head_size": HEAD_SIZE,
    "chunk_length": CHUNK_LENGTH,
    "num_chunks_before": 1,
    "num_rounds": NUM_ROUNDS,
    "num_repeats": NUM_REPEATS,
    "max_num_buckets": MAX_NUM_BUCKETS,
    "cosine": "exactly that of any two repeats of a direction",
    "tolerance_standard_errors": TOLERANCE,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; 0 if the growing resolution is at least as good everywhere, else 1."""
    options = _parse(arguments)
    begin = time.perf_counter()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        compared = _measure_all(options, LENGTHS, schemes, progress)
        factorised = _measure_all(options, FACTOR_LENGTHS, factor_schemes, progress)
    failures = find_failures(compared)
    print(format_schemes(compared))
    if factorised:
        print(format_factors(factorised))
    report = {
        "machine": describe_machine(),
        "settings": SETTINGS,
        "seconds": round(time.perf_counter() - begin, 1),
        "failures": failures,
        "schemes": [asdict(result) for result in compared],
        "factors": [asdict(result) for result in factorised],
    }
    write_text_atomically(options.out / "visibility.json", json.dumps(report, indent=1) + "\n")
    write_text_atomically(options.out / "visibility.svg", draw(compared))
    print(f"visibility.json and visibility.svg are in {options.out}")
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def find_failures(compared: Sequence[Visibility]) -> list[str]:
    """A line for each cosine and length where the growing resolution sees less than the chunks."""
    by_name = {(v.cosine, v.num_keys, v.scheme): v for v in compared}
    failures = []
    for (cosine, num_keys, scheme), growing in by_name.items():
        if scheme != "bucket growing":
            continue
        difference, error = advantage(growing, by_name[cosine, num_keys, "chunks"])
        if difference < -TOLERANCE * error:
            failures.append(
                f"cosine {cosine:g}, {num_keys:,} keys: the growing resolution sees "
                f"{-difference:.2g} ± {error:.1g} less than the chunks"
            )
    return failures


def format_schemes(compared: Sequence[Visibility]) -> str:
    """A row for each cosine and length, a column for each scheme."""
    names = list(dict.fromkeys(v.scheme for v in compared))
    lines = ["share of queries that see their nearest earlier match", ""]
    lines.append(f"{'cosine':>6} {'keys':>9}" + "".join(f"{name:>17}" for name in names))
    for (cosine, num_keys), row in itertools.groupby(compared, key=lambda v: (v.cosine, v.num_keys)):
        shares = "".join(f"{v.seen:>9.4f} ±{v.standard_error:.4f}" for v in row)
        lines.append(f"{cosine:>6g} {num_keys:>9,}{shares}")
    return "\n".join([*lines, ""])


def format_factors(factorised: Sequence[Visibility]) -> str:
    """A row for each cosine, length and way to factorise."""
    lines = ["growing resolution with other factors", ""]
    lines.append(
        f"{'cosine':>6} {'keys':>9}  {'factors':<22}{'share':>15} {'products/token':>15} {'hash':>9}"
    )
    lines += [
        f"{v.cosine:>6g} {v.num_keys:>9,}  {v.scheme:<22}{v.seen:>7.4f} ±{v.standard_error:.4f} "
        f"{v.products_per_token:>15.1f} {v.hash_seconds:>7.2f} s"
        for v in factorised
    ]
    return "\n".join([*lines, ""])


def draw(compared: Sequence[Visibility]) -> str:
    """The first table as an SVG picture, a panel for each cosine."""
    import matplotlib
    from matplotlib.figure import Figure

    cosines = list(dict.fromkeys(v.cosine for v in compared))
    names = list(dict.fromkeys(v.scheme for v in compared))
    figure = Figure(figsize=(4 * len(cosines), 3.6), layout="constrained")
    panels = figure.subplots(1, len(cosines), sharey=True, squeeze=False)[0]
    for panel, cosine in zip(panels, cosines, strict=True):
        for name, colour, marker in zip(names, COLOURS, "so^D", strict=True):
            line = [v for v in compared if (v.cosine, v.scheme) == (cosine, name)]
            keys, shares, errors = zip(*((v.num_keys, v.seen, v.standard_error) for v in line), strict=True)
            panel.errorbar(keys, shares, errors, label=name, color=colour, marker=marker, markersize=4)
        panel.set_xscale("log", base=2)
        panel.set_xlabel("keys")
        panel.set_title(f"cosine {cosine:g}")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("queries that see their\nnearest earlier match")
    panels[0].set_ylim(0, 1.02)
    panels[0].legend(loc="lower left", fontsize="small")
    picture = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "visibility"}):
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()


def _measure_all(
    options: argparse.Namespace,
    all_lengths: Sequence[int],
    schemes_of: Callable[[int], Mapping[str, Scheme]],
    progress: Progress,
) -> list[Visibility]:
    """Measure every cosine at every length up to `options.max_keys`, under a progress bar."""
    lengths = [n for n in all_lengths if n <= options.max_keys]
    total = len(options.cosines) * sum(n * num_trials(n) * len(schemes_of(n)) for n in lengths)
    task = progress.add_task(schemes_of.__name__.replace("_", " "), total=total)
    results = []
    for cosine, num_keys in itertools.product(options.cosines, lengths):
        advance = functools.partial(progress.advance, task)
        results += measure(cosine, num_keys, schemes_of(num_keys), advance)
    return results


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.visibility",
        description="How often does a query see its nearest earlier match?",
    )
    parser.add_argument("--max-keys", type=int, default=LENGTHS[-1], help="leave out longer sequences")
    parser.add_argument("--cosines", type=float, nargs="+", default=[1.0, 0.95, 0.85], help="of two repeats")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder")
    options = parser.parse_args(arguments)
    if options.max_keys < LENGTHS[0]:
        parser.error(f"--max-keys must be at least {LENGTHS[0]}, got {options.max_keys}")
    for cosine in options.cosines:
        if not 0 <= cosine <= 1:
            parser.error(f"--cosines must be in [0, 1], got {cosine:g}")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out must be a folder that can be made: {options.out}: {error.strerror}")
    if not os.access(options.out, os.W_OK):
        parser.error(f"--out must be a folder that can be written to: {options.out}")
    return options


if __name__ == "__main__":
    sys.exit(main())
