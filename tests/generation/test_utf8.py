import contextlib
import itertools
import random

import pytest
import torch

from reformer import ReformerForCausalLM
from reformer.data.tokenizers import ByteTokenizer, Enwik8Tokenizer
from reformer.generation.utf8 import Utf8Text
from tests.models.small_models import build

PREFIXES = [
    "",
    "e",
    "é",
    "\u0800",
    "ก",
    "\ud7ff",
    "\ue000",
    "\U00010000",
    "\U000fffff",
    "\U0010ffff",
    "aé€😀",
]


def _can_follow(text: bytes, byte: int) -> bool:
    """Whether Python decodes some text that begins so."""
    for count in range(4):
        for rest in itertools.product((0x80, 0x90, 0xA0), repeat=count):
            with contextlib.suppress(UnicodeDecodeError):
                (text + bytes([byte, *rest])).decode()
                return True
    return False


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), Enwik8Tokenizer()], ids=["bytes", "enwik8"])
def test_the_bytes_that_pythons_decoder_takes(tokenizer: ByteTokenizer) -> None:
    processor = Utf8Text(tokenizer)
    ids = [tokenizer.convert_tokens_to_ids(chr(byte)) for byte in range(256)]
    special = sorted(set(range(len(tokenizer))) - set(ids))
    for prefix in PREFIXES:
        whole = b"x" + prefix.encode()
        for end in range(1, len(whole) + 1):
            text = whole[:end]
            scores = torch.randn(1, len(tokenizer))
            found = processor(torch.tensor([[ids[byte] for byte in text]]), scores)[0]
            allowed = found.isfinite()
            assert torch.equal(found[allowed], scores[0, allowed])
            assert allowed[ids].tolist() == [_can_follow(text, byte) for byte in range(256)], text
            between = text.decode(errors="ignore").encode() == text
            assert allowed[special].tolist() == [between] * len(special)


def test_no_character_is_begun_that_cannot_be_ended() -> None:
    """Rows that draw among all that is allowed, in every number of tokens."""
    tokenizer = ByteTokenizer()
    rng = random.Random(0)
    for length in (1, 2, 3, 4, 5, 60):
        processor = Utf8Text(tokenizer, max_length=3 + length)
        ids = torch.tensor([list("né".encode())] * 400)
        for _ in range(length):
            scores = processor(ids, torch.zeros(400, len(tokenizer)))
            scores[:, tokenizer.all_special_ids] = -torch.inf
            drawn = [rng.choice(row.isfinite().nonzero().flatten().tolist()) for row in scores]
            ids = torch.cat([ids, torch.tensor(drawn)[:, None]], dim=1)
        texts = [bytes(row).decode() for row in ids.tolist()]
        assert {len(char.encode()) for text in texts for char in text[2:]} == set(
            range(1, min(length, 4) + 1)
        )


def test_a_random_model_writes_text() -> None:
    tokenizer = ByteTokenizer()
    model = build(ReformerForCausalLM, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    ids = tokenizer(["so ", "naïve"], padding=True, padding_side="left", return_tensors="pt")
    options = {"max_new_tokens": 80, "do_sample": True, "suppress_tokens": tokenizer.all_special_ids}
    free = model.generate(**ids, **options)
    assert "\ufffd" in tokenizer.decode(free[0])
    length = ids["input_ids"].shape[1] + 80
    found = model.generate(**ids, **options, logits_processor=[Utf8Text(tokenizer, length)])
    for row in found[:, ids["input_ids"].shape[1] :]:
        bytes(row.tolist()).decode()
