from pathlib import Path

import pytest
import torch

from reformer import ReformerForCausalLM
from reformer.data.tokenizers import ByteTokenizer
from reformer.errors import UserError
from reformer.generation.cache_file import load_cache, save_cache
from reformer.generation.continuation import Sampling, continue_text
from reformer.models.cache import ReformerCache
from tests.generation.test_continuation import model_for
from tests.models.small_models import build, tokens


@torch.no_grad()
def _written(path: Path, model: ReformerForCausalLM) -> ReformerCache:
    cache = ReformerCache(model.reformer.encoder)
    ids = tokens(2, 70)
    mask = torch.ones_like(ids)
    mask[1, :13] = 0
    model(ids, mask, past_key_values=cache)
    for i in range(5):
        model(ids[:, i : i + 1], past_key_values=cache)
    save_cache(path, model, cache, torch.tensor([7, 8]))
    return cache


@pytest.mark.parametrize("window", ["bucket", "chunk"])
@torch.no_grad()
def test_a_cache_read_from_a_file_goes_on_bit_for_bit(window: str, tmp_path: Path) -> None:
    model = build(ReformerForCausalLM, lsh_window=window)
    cache = _written(tmp_path / "x", model)
    loaded, last_ids = load_cache(tmp_path / "x", model)
    assert last_ids.tolist() == [7, 8]
    assert (loaded.columns, loaded.lengths) == (75, [75, 62])
    for step in (1, 60, 1, 1):
        more = tokens(2, step, seed=step)
        assert torch.equal(
            model(more, past_key_values=loaded).logits, model(more, past_key_values=cache).logits
        )
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    model, path = build(ReformerForCausalLM), tmp_path / "x"
    _written(path, model)
    with pytest.raises(UserError, match="its config is not this model's"):
        load_cache(path, build(ReformerForCausalLM, hash_seed=3))
    with pytest.raises(UserError, match="its weights is not this model's"):
        load_cache(path, build(ReformerForCausalLM, seed=1))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="cut off or damaged"):
        load_cache(path, model)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="not a cache"):
        load_cache(tmp_path / "model" / "model.safetensors", model)


def test_a_text_is_continued_from_its_cache(tmp_path: Path) -> None:
    tokenizer, path = ByteTokenizer(), tmp_path / "x"
    model, sampling = model_for(tokenizer), Sampling(30, seed=2)
    text = "In the beginning God created the heaven and the earth."
    whole = continue_text(model, tokenizer, text, sampling)
    assert continue_text(model, tokenizer, text, sampling, save_cache_file=path) == whole
    assert continue_text(model, tokenizer, None, sampling, cache_file=path) == whole
    more = continue_text(model, tokenizer, text + " And", sampling)
    assert continue_text(model, tokenizer, " And", sampling, cache_file=path) == more
