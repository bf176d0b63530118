from itertools import chain

import h5py
import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch

from reformer import ReformerForCausalLM, ReformerForMaskedLM
from reformer.data.tokenizers import NucleotideTokenizer
from reformer.errors import UserError
from reformer.genomics import embedding
from reformer.genomics.coordinates import Interval, reverse_complement
from reformer.genomics.embedding import Embedder, Stretch, stretches, write_embeddings
from reformer.genomics.genome import Genome
from reformer.genomics.windows import Windows
from tests.models.small_models import build
from tests.training.conftest import write_fasta

BED = b"record0\t10\t90\tplus\t0\t+\nrecord1\t5\t40\tminus\t0\t-\nrecord0\t0\t7\n"


@pytest.fixture
def genome(tmp_path):
    with Genome(write_fasta(tmp_path / "g.fa", 300, 50, letters="ACGTN")) as opened:
        yield opened


def hidden(model, letters):
    ids = NucleotideTokenizer()(letters, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model.reformer(ids).last_hidden_state[0].numpy()


def rows(embedder, items):
    batches = list(embedder.rows(items))
    whole = {}
    for name in batches[0]:
        parts = [batch[name] for batch in batches]
        whole[name] = list(chain(*parts)) if isinstance(parts[0], list) else np.concatenate(parts)
    return whole


@pytest.mark.parametrize("kind", [ReformerForCausalLM, ReformerForMaskedLM])
@pytest.mark.parametrize("pooling", ["mean", "last", "per-base"])
@pytest.mark.parametrize("both", [False, True])
def test_vectors_are_those_of_plain_passes(genome, write, kind, pooling, both):
    model = build(kind, vocab_size=9)
    items = list(stretches(genome, write("r.bed", BED)))
    table = rows(Embedder(model, genome, "fold", pooling, both), items)
    pool = {"mean": lambda x: x.mean(0), "last": lambda x: x[-1], "per-base": lambda x: x}[pooling]
    expected = []
    for item in items:
        letters = genome.letters(item.interval)
        found = pool(hidden(model, letters))
        if both:
            other = pool(hidden(model, reverse_complement(letters)))
            found = (found + (other[::-1] if pooling == "per-base" else other)) / 2
        expected.append(np.atleast_2d(found))
    np.testing.assert_allclose(table["embedding"], np.concatenate(expected), atol=2e-5)
    assert table["embedding"].dtype == np.float32


def test_rows_say_where_they_are(genome, write):
    model = build(ReformerForCausalLM, vocab_size=9)
    items = list(stretches(genome, write("r.bed", BED), window=30))
    table = rows(Embedder(model, genome, "fold", "mean", False), items)
    where = list(zip(*(table[key] for key in ("name", "sequence", "start", "end", "strand")), strict=True))
    assert where == [
        ("plus", "record0", 10, 40, "+"), ("plus", "record0", 40, 70, "+"), ("plus", "record0", 70, 90, "+"),
        ("minus", "record1", 10, 40, "-"), ("minus", "record1", 5, 10, "-"),
        ("record0:0-7", "record0", 0, 7, "."),
    ]  # fmt: skip
    table = rows(Embedder(model, genome, "fold", "per-base", False), items[4:])
    assert table["start"].tolist() == [9, 8, 7, 6, 5, 0, 1, 2, 3, 4, 5, 6]
    assert (table["end"] == table["start"] + 1).all()


def test_windows_cover_every_base(genome):
    def bounds(window, step=None):
        intervals = [item.interval for item in stretches(genome, None, window, step)]
        return [(i.start, i.end) for i in intervals if i.sequence == "record1"]

    assert bounds(20) == [(0, 20), (20, 40), (40, 50)]
    assert bounds(20, 10) == [(0, 20), (10, 30), (20, 40), (30, 50)]
    assert bounds(20, 30) == [(0, 20), (30, 50)]
    assert bounds(60) == [(0, 50)]
    assert bounds(None) == [(0, 50)]


def test_batches_do_not_matter(genome, monkeypatch):
    embedder = Embedder(build(ReformerForCausalLM, vocab_size=9), genome, "fold", "mean", False)
    items = list(stretches(genome, None, 23, 11))
    together = rows(embedder, items)["embedding"]
    monkeypatch.setattr(embedding, "_TOKENS_PER_BATCH", 50)
    np.testing.assert_allclose(rows(embedder, items)["embedding"], together, atol=2e-5)


@pytest.mark.parametrize("suffix", [".parquet", ".h5"])
def test_files_of_the_field(genome, tmp_path, suffix):
    model = build(ReformerForCausalLM, vocab_size=9)
    items = [Stretch("é", Interval("record0", 0, 40)), Stretch("b", Interval("record1", 3, 8, "-"))]
    embedder = Embedder(model, genome, "fold", "mean", False)
    write_embeddings(tmp_path / f"e{suffix}", embedder.rows(items))
    expected = rows(embedder, items)
    if suffix == ".parquet":
        table = parquet.read_table(tmp_path / "e.parquet")
        found = {name: table[name].to_pylist() for name in table.column_names}
    else:
        with h5py.File(tmp_path / "e.h5") as file:
            found = {
                name: list(data.asstr()) if data.dtype == object else data[:] for name, data in file.items()
            }
    assert found["name"] == ["é", "b"]
    assert list(found["end"]) == [40, 8]
    np.testing.assert_array_equal(np.float32(found["embedding"]), expected["embedding"])


@pytest.mark.parametrize(
    ("bed", "window", "step", "message"),
    [
        (b"chrrecord0\t1\t5\n", None, None, "sequence 'chrrecord0' is not in"),
        (b"record1\t1\t5\nrecord1\t40\t51\n", None, None, "region 2 .* none after 50, where 'record1' ends"),
        (b"record1\t4\t4\n", None, None, "expected at least one base"),
        (None, 0, None, "--window is 0: expected 1 to 1,048,576"),
        (None, None, 4, "--step is 4: .* --window with it"),
        (None, 4, 0, "--step is 0: expected 1 base or more"),
    ],
)
def test_what_cannot_be(genome, write, bed, window, step, message):
    regions = None if bed is None else write("r.bed", bed)
    with pytest.raises(UserError, match=message):
        list(stretches(genome, regions, window, step))


@pytest.mark.parametrize("pooling", ["mean", "last", "per-base"])
@pytest.mark.parametrize("both", [False, True])
def test_windows_of_a_long_sequence_give_what_one_pass_gives(tmp_path, write, monkeypatch, pooling, both):
    """Where the model sees no further than windows overlap: two chunks of 8 bases."""
    model = build(ReformerForCausalLM, vocab_size=9, attn_layers=["local"])
    region = write("r.bed", b"record0\t8\t216\tx\t0\t-\n")
    with Genome(write_fasta(tmp_path / "long.fa", 224, 24)) as genome:
        embedder = Embedder(model, genome, "fold", pooling, both)
        expected = [rows(embedder, list(stretches(genome, where))) for where in (None, region)]
        monkeypatch.setattr(embedding, "WINDOWS", Windows(64, 16))
        monkeypatch.setattr(embedding, "_TOKENS_PER_BATCH", 64)
        bases = []
        for where, table in zip((None, region), expected, strict=True):
            found = list(embedder.rows(stretches(genome, where), bases.append))
            for name in ("name", "sequence", "strand"):
                assert list(chain(*(batch[name] for batch in found))) == table[name]
            for name in ("start", "end"):
                assert np.concatenate([batch[name] for batch in found]).tolist() == table[name].tolist()
            vectors = np.concatenate([batch["embedding"] for batch in found])
            np.testing.assert_allclose(vectors, table["embedding"], atol=2e-5)
            assert vectors.dtype == np.float32
    assert sum(bases) == 224 + 24 + 208
