import numpy as np
import torch

from reformer.data.build import build_token_array
from reformer.data.nucleotides import reverse_complement
from reformer.genomics.tracks.levels import MISSING
from reformer.genomics.tracks.training import TrackBatches
from reformer.models.auto import ReformerConfig, ReformerForTokenClassification
from reformer.training.recipe import Stage
from tests.training.conftest import TINY_MODEL

IGNORED = -100


def test_labels_follow_the_strand_that_is_read(tmp_path):
    generator = np.random.default_rng(0)
    texts = ["".join(generator.choice(list("ACGTN"), length)) for length in (300, 201)]
    (tmp_path / "g.fa").write_text("".join(f">s{n}\n{text}\n" for n, text in enumerate(texts)))
    array = build_token_array(tmp_path / "g.fa", tmp_path / "cache")
    numbers = generator.integers(0, 4, (3, len(array))).astype(np.uint8)
    numbers[generator.random(numbers.shape) < 0.1] = MISSING
    stages = [Stage(length=64, steps=20, batch_size=2)]
    batches = TrackBatches(array, numbers, (1, 0, 2), stages, 7, 1, other_strand=True)
    strands = set()
    for index in range(20):
        batch = batches[index]
        for row, span in enumerate(batches.spans(index)):
            strands.add(span.is_other_strand)
            tokens = np.array(array.window(span.start, span.length))
            labels = numbers[:, span.start : span.start + span.length].astype(np.int64)
            unknown = tokens == array.vocabulary["N"]
            labels[(labels == MISSING) | unknown] = IGNORED
            if span.is_other_strand:
                tokens, labels = reverse_complement(tokens), labels[[1, 0, 2], ::-1]
            assert np.array_equal(batch["input_ids"][row].numpy(), tokens)
            assert np.array_equal(batch["labels"][row].numpy(), labels.T)
    assert strands == {True, False}


def test_the_loss_of_several_tracks_is_the_mean_over_their_known_levels():
    torch.manual_seed(0)
    config = ReformerConfig(**TINY_MODEL, vocab_size=7, id2label={n: str(n) for n in range(8)})
    model = ReformerForTokenClassification(config).eval()
    ids = torch.randint(0, 7, (2, 64))
    labels = torch.randint(0, 4, (2, 64, 2))
    labels[0, :9] = IGNORED
    labels[1, 5, 1] = IGNORED
    mask = torch.ones(2, 64, dtype=torch.int64)
    mask[1, 60:] = 0
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask, labels=labels)
    by_track = found.logits.unflatten(-1, (2, 4)).log_softmax(-1)
    counted = (labels != IGNORED) & mask.bool()[..., None]
    nats = -by_track.gather(-1, labels.clamp(min=0)[..., None])[..., 0][counted]
    torch.testing.assert_close(found.loss, nats.mean())
