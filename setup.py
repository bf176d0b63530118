r"""Builds the compiled CPU kernels: a plain shared library, loaded by reformer/ops/cpu.py.

Everything else about the package is in pyproject.toml. The library is optional: where there is no compiler
that can build it, the package installs without it and uses the portable path.

REFORMER_CXXFLAGS adds to the flags of compiler and linker. To look for errors of memory and undefined
behaviour:

    export REFORMER_CXXFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=undefined -g"
    python setup.py build_ext --inplace --force
    LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libstdc++.so)" \
        ASAN_OPTIONS=detect_leaks=0 python -m pytest tests/ops/test_cpu.py
"""

import logging
import os
import platform
import shlex
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

log = logging.getLogger(__name__)

SOURCES = Path("src/reformer/ops/csrc")
FLAGS = ["-std=c++20", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-pthread"]
# The kernels are compiled once for each: name of the table, name for people, lanes of a vector, flags.
GENERIC = ("kGeneric", "generic", 4, [])
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"]
X86 = [
    ("kAvx2", "avx2", 8, ["-mavx2", "-mfma"]),
    ("kAvx512", "avx512", 16, AVX512),
    ("kAvx512Bf16", "avx512bf16", 16, [*AVX512, "-mavx512bf16", "-DREFORMER_BF16"]),
]
AMX = ("kAmx", "amx", 16, [*X86[-1][-1], "-mamx-tile", "-mamx-bf16", "-DREFORMER_AMX"])  # GCC 11, Clang 12


class BuildKernels(build_ext):
    """Compiles one source several times, for each instruction set, and links a library without Python."""

    def build_extension(self, ext: Extension) -> None:
        """Compile and link."""
        is_x86 = platform.machine().lower() in ("x86_64", "amd64")
        flags = FLAGS + (["-DREFORMER_X86"] if is_x86 else [])
        flags += shlex.split(os.environ.get("REFORMER_CXXFLAGS", ""))
        objects = []
        for kernels in [GENERIC, *(X86 if is_x86 else [])]:
            objects += self._compile_kernels(kernels, flags)
        if is_x86 and platform.system() == "Linux":
            try:
                objects += self._compile_kernels(AMX, flags)
                flags.append("-DREFORMER_HAS_AMX")
            except CompileError:
                log.warning("without the kernels for AMX, which this compiler does not know")
        objects += self._compile(["library.cpp", "plan.cpp"], "common", flags)
        self.compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(ext.name),
            extra_postargs=["-pthread", *shlex.split(os.environ.get("REFORMER_CXXFLAGS", ""))],
            target_lang="c++",
        )

    def _compile_kernels(self, kernels: tuple[str, str, int, list[str]], flags: list[str]) -> list[str]:
        table, name, lanes, isa_flags = kernels
        macros = [f"-DREFORMER_KERNELS={table}", f'-DREFORMER_NAME="{name}"', f"-DREFORMER_LANES={lanes}"]
        return self._compile(["kernels.cpp"], name, flags + macros + isa_flags)

    def _compile(self, names: list[str], folder: str, flags: list[str]) -> list[str]:
        return self.compiler.compile(
            [str(SOURCES / name) for name in names],
            output_dir=str(Path(self.build_temp) / folder),
            extra_postargs=flags,
            depends=[str(path) for path in SOURCES.glob("*.h")],
        )

    def get_ext_filename(self, fullname: str) -> str:
        """The same name for every Python: the library does not depend on its version."""
        return str(Path(*fullname.split("."))) + ".so"


setup(
    ext_modules=[
        Extension(
            "reformer.ops._kernels",
            [str(SOURCES / name) for name in ("library.cpp", "plan.cpp", "kernels.cpp")],
            depends=[str(path) for path in SOURCES.glob("*.h")],
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},  # one wheel for every later Python
)
