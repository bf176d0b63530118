import numpy as np

from reformer.data.build import build_token_array
from reformer.data.nucleotides import reverse_complement
from reformer.genomics.annotation.classes import ClassScheme
from reformer.genomics.annotation.data import LabelledSequences
from reformer.genomics.annotation.training import AnnotationBatches
from reformer.genomics.base_encoding import BaseEncoding, anchored_labels
from reformer.training.recipe import Stage

SCHEME = ClassScheme(kinds=("CDS",))
ENCODING = BaseEncoding(orf_lengths=(30,))


def test_a_window_is_read_as_a_part_of_its_record(tmp_path):
    """Tokens, frames and labels of a window equal those cut out of the whole record, on either strand."""
    generator = np.random.default_rng(0)
    texts = ["".join(generator.choice(list("ACGT"), length)) for length in (500, 301)]
    (tmp_path / "g.fa").write_text("".join(f">s{n}\n{text}\n" for n, text in enumerate(texts)))
    array = build_token_array(tmp_path / "g.fa", tmp_path / "cache")
    labels = generator.integers(0, len(SCHEME.names), len(array)).astype(np.uint8)
    sequences = LabelledSequences(array, labels, [], ())
    stages = [Stage(length=64, steps=20, batch_size=2)]
    batches = AnnotationBatches(sequences, SCHEME, ENCODING, stages, 7, 1, other_strand=True)
    strands = set()
    for index in range(20):
        batch = batches[index]
        for row, span in enumerate(batches.spans(index)):
            strands.add(span.is_other_strand)
            record = max((r for r in array.records if r.start <= span.start), key=lambda r: r.start)
            tokens = array.window(record.start, record.length)
            classes = labels[record.start : record.start + record.length]
            offset = span.start - record.start
            if span.is_other_strand:
                tokens, classes = reverse_complement(tokens), SCHEME.reverse_complement(classes)
                offset = record.length - offset - span.length
            shifts = [
                shift
                for shift in range(3)  # the place modulo 3 is drawn
                if np.array_equal(
                    ENCODING.ids(tokens, shift - offset)[offset + 1 : offset + 63],
                    batch["input_ids"][row, 1:-1].numpy(),
                )
            ]
            (shift,) = shifts
            inner = slice(offset, offset + span.length)
            expected = anchored_labels(SCHEME, classes, shift - offset)[inner]
            assert np.array_equal(batch["labels"][row].numpy(), expected)
    assert strands == {True, False}
