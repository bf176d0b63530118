"""Run every benchmark: `python -m benchmarks`."""

import sys

from benchmarks import decoding, memory, visibility

if __name__ == "__main__":
    memory.main()
    decoding.main([])
    sys.exit(visibility.main([]))
