"""What `reformer dna tracks predict` does: a genome in, a folder with bigWig, scores and a report out."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reformer.errors import UserError
from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.tracks import BigWig, write_bigwig
from reformer.genomics.plotted import shown_region
from reformer.genomics.provenance import PROVENANCE_FILE, provenance, write_provenance
from reformer.genomics.spool import Spool
from reformer.genomics.tracks.correlation import Correlation
from reformer.genomics.tracks.levels import Levels
from reformer.genomics.tracks.predictor import TrackPredictor
from reformer.genomics.tracks.report import Found, write_tracks_report
from reformer.genomics.windows import Windows
from reformer.training.atomic import atomic_folder, write_text_atomically
from reformer.training.memory import return_large_memory

if TYPE_CHECKING:
    from reformer.data.tokens import Record, TokenArray

TRACKS, REPORT_FILE, SCORES_FILE = "tracks", "report.html", "scores.json"


@dataclass(frozen=True)
class Options:
    """What is asked for.

    Attributes:
        windows: how long records are cut.
        both_strands: average over both strands.
        region: what the plot shows, "NAME:FIRST-LAST"; None for the middle of the longest record.
        measured: bigWig files of what was measured, in the order of the model's tracks; none for no scores.
        no_value: what a base is that these have no value of, "zero" or "missing".
    """

    windows: Windows
    both_strands: bool = True
    region: str | None = None
    measured: tuple[Path, ...] = ()
    no_value: str = "zero"


class _Scorer:
    """Compares one track with what was measured: of values, and of their asinh, which tails rule less."""

    def __init__(self, file: BigWig, levels: Levels, is_zero: bool) -> None:
        self._file, self._levels, self._is_zero = file, levels, is_zero
        self.correlations = {"pearson_r": Correlation(), "pearson_r_of_asinh": Correlation()}

    def true(self, name: str, start: int, end: int) -> npt.NDArray[np.float32]:
        values = self._file.values(name, start, end)
        return np.nan_to_num(values, nan=0.0) if self._is_zero else values

    def add(self, name: str, start: int, predicted: npt.NDArray[np.float32]) -> None:
        """Takes predictions, NaN where a base is unknown."""
        true, spread = self.true(name, start, start + len(predicted)), self._levels.spread
        self.correlations["pearson_r"].add(predicted, true)
        self.correlations["pearson_r_of_asinh"].add(spread(predicted), spread(true))

    def to_json(self) -> dict[str, float | None]:
        return {name: one.r for name, one in self.correlations.items()}


def predict(model: Path, genome: Path, out: Path, options: Options, device: str = "auto") -> list[str]:
    """Predicts tracks along a genome, and compares them with what was measured.

    Returns:
        Lines that say what was predicted and where it is.

    Raises:
        UserError: for whatever is wrong with a file or the region.
    """
    from reformer.training.corpus import open_corpus
    from reformer.training.metrics import peak_memory_bytes
    from reformer.training.progress import progress_bar

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not empty: expected a folder to make")
    predictor = TrackPredictor.load(model, device)
    settings = predictor.settings
    array = open_corpus([genome], "auto", settings.lower_case)
    if array.tokenizer_name != "nucleotide":
        raise UserError(f"{genome}: not FASTA of nucleotides: expected a genome")
    scorers = _scorers(predictor, array, genome, options)
    region = shown_region(array, options.region)
    made = provenance("dna tracks predict", model, device, genome=genome, **_plain(options))
    shown = np.full((len(region), len(settings.names)), np.nan, dtype=np.float32)
    with atomic_folder(out) as partial:
        write_provenance(partial / PROVENANCE_FILE, made)
        started = time.perf_counter()
        spool = Spool(partial / ".values", len(array), np.float32)
        with progress_bar("predicting", len(array)) as advance:
            for record in array.records:
                return_large_memory()
                for start, end, inner in options.windows.of(record.length):
                    window = array.window(record.start + start, end - start)
                    values = predictor.predict_known(window, both_strands=options.both_strands)[inner]
                    first = start + inner.start
                    spool.write(record.start + first, values)
                    _keep(shown, region, record, first, values)
                    for number, scorer in enumerate(scorers):
                        scorer.add(record.name, first, values[:, number])
                    advance(len(values))
        seconds = time.perf_counter() - started
        (partial / TRACKS).mkdir()
        lengths = {record.name: record.length for record in array.records}
        for number, name in enumerate(settings.names):
            try:
                write_bigwig(partial / TRACKS / f"{name}.bw", lengths, spool.blocks(number, array))
            except ValueError as error:
                raise UserError(f"{genome}: no base is known: nothing to predict") from error
        spool.remove()
        facts = [
            ("Genome", str(genome), f"{len(array):,} bases in {len(array.records):,} record(s)"),
            ("Model", str(model), f"{sum(p.numel() for p in predictor.model.parameters()):,} parameters"),
            ("Time", f"{seconds:,.1f} s", f"{len(array) / seconds:,.0f} bases a second"),
            ("Peak memory", f"{peak_memory_bytes() / 2**20:,.0f} MiB", "of the whole process"),
        ]
        scores = {name: one.to_json() for name, one in zip(settings.names, scorers, strict=False)}
        if scores:
            write_text_atomically(partial / SCORES_FILE, json.dumps(scores, indent=1) + "\n")
        true = [one.true(region.sequence, region.start, region.end) for one in scorers]
        page = Found(f"Tracks of {genome.name}", facts, settings.names, region, shown, true, scores)
        note = write_tracks_report(partial / REPORT_FILE, page)
    lines = [f"{what.lower():14}{value}  ({remark})" for what, value, remark in facts]
    lines += [
        f"{name:14}Pearson's r {_number(of['pearson_r'])}, of asinh {_number(of['pearson_r_of_asinh'])}"
        for name, of in scores.items()
    ]
    lines += [f"{'note':14}{note}"] if note else []
    return [*lines, f"{'tracks':14}{out / TRACKS}", f"{'report':14}{out / REPORT_FILE}"]


def _keep(
    shown: npt.NDArray[np.float32],
    region: Interval,
    record: Record,
    first: int,
    values: npt.NDArray[np.float32],
) -> None:
    low, high = max(first, region.start), min(first + len(values), region.end)
    if record.name == region.sequence and low < high:
        shown[low - region.start : high - region.start] = values[low - first : high - first]


def _scorers(predictor: TrackPredictor, array: TokenArray, genome: Path, options: Options) -> list[_Scorer]:
    names, files = predictor.settings.names, options.measured
    if files and len(files) != len(names):
        raise UserError(f"--measured: {len(files)} files: expected one for each of {', '.join(names)}")
    lengths = {record.name: record.length for record in array.records}
    return [
        _Scorer(BigWig(file, lengths, genome), levels, options.no_value == "zero")
        for file, levels in zip(files, predictor.settings.levels, strict=False)
    ]


def _plain(options: Options) -> dict[str, Any]:
    return {**asdict(options), "measured": [str(path.absolute()) for path in options.measured]}


def _number(r: float | None) -> str:
    return "none: all alike" if r is None else f"{r:.4f}"
