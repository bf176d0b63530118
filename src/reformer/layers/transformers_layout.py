"""Where transformers' Reformer cuts an input into chunks, and how many buckets it gives it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TransformersLayout:
    """Chunks of a padded input, which lie on a circle.

    transformers pads an input that is longer than the shortest chunk to a multiple of all chunk lengths.
    Padding, its own and the caller's, fills chunks behind the real tokens like tokens do, and the first
    and the last chunk are neighbours. So a bidirectional output can depend on how far a batch is padded.

    Args:
        multiple: least common multiple of the chunk lengths.
        shortest: the shortest chunk length; no longer an input is not padded.
        max_positions: `max_position_embeddings`.
    """

    multiple: int
    shortest: int
    max_positions: int

    def num_chunks(self, length: int, chunk_length: int) -> int:
        """Chunks on the circle for an input of `length` tokens, padding included."""
        return -(-self._padded(length) // chunk_length)

    def bucket_factors(self, length: int, chunk_length: int) -> tuple[int, ...]:
        """Factors of the power of two at or below 2 T / C, where `num_buckets` is None.

        transformers keeps the number that its first input gave it; here each input has its own.
        """
        exponent = (2 * max(1, self._padded(length) // chunk_length)).bit_length() - 1
        largest_factor = 2 * max(int((self.max_positions // chunk_length) ** 0.5), chunk_length)
        if 1 << exponent <= largest_factor:
            return (1 << exponent,)
        return 1 << exponent // 2, 1 << exponent - exponent // 2

    def _padded(self, length: int) -> int:
        return length if length <= self.shortest else -(-length // self.multiple) * self.multiple
