"""What the draws of a row are."""

import pytest
import torch

from reformer.models.sampling import draw, row_generators
from tests.models.small_models import tokens


def test_draws_follow_the_scores() -> None:
    scores = torch.tensor([0.0, -torch.inf, 1.5, -1.0, 0.3, -torch.inf])
    generators = [torch.Generator().manual_seed(seed) for seed in range(20_000)]
    counts = draw(scores.expand(len(generators), -1), generators).bincount(minlength=6)
    expected = scores.softmax(0) * len(generators)
    assert counts[scores.isinf()].tolist() == [0, 0]
    assert ((counts - expected).abs() <= 5 * expected.sqrt()).all()


def test_what_cannot_be_drawn_is_an_error() -> None:
    for scores in ([torch.nan, 0.0], [-torch.inf, -torch.inf]):
        with pytest.raises(ValueError, match="no token can be drawn"):
            draw(torch.tensor([[0.0, 0.0], scores]), [torch.Generator(), torch.Generator()])


def test_a_row_has_the_same_generator_in_any_batch() -> None:
    ids = torch.cat([tokens(2, 9), tokens(1, 9), tokens(1, 9, seed=3)])
    ids[2, 5] = 1
    mask = torch.ones_like(ids)
    mask[3, :4] = 0

    def numbers(ids: torch.Tensor, mask: torch.Tensor | None) -> list[float]:
        torch.manual_seed(1)
        return [torch.rand((), generator=g).item() for g in row_generators(ids, mask)]

    found = numbers(ids, mask)
    assert len(set(found)) == 4
    assert numbers(ids[2:3], None) == found[2:3]
    assert numbers(ids[3:, 4:], None) == found[3:]
    twice = numbers(ids[[2, 2]], mask[[2, 2]])
    assert twice[0] == found[2] != twice[1]
    torch.manual_seed(1)
    row_generators(ids, None)
    assert torch.rand(()) == _after_one_draw(1)


def _after_one_draw(seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    torch.randint((1 << 63) - 1, ())
    return torch.rand(())
