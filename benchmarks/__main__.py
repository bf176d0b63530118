"""Run every benchmark: `python -m benchmarks`."""

import sys

from benchmarks import memory, visibility

if __name__ == "__main__":
    memory.main()
    sys.exit(visibility.main([]))
