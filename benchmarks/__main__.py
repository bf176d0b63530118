"""Run every benchmark: `python -m benchmarks`."""

import sys

from benchmarks import decoding, memory, seq2seq, visibility

if __name__ == "__main__":
    memory.main()
    decoding.main([])
    seq2seq.main()
    sys.exit(visibility.main([]))
