import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("library", "call"),
    [
        ("pysam", "from reformer.genomics.genome import Genome; Genome('x.fa')"),
        (
            "pysam",
            "from reformer.genomics.variants.vcf import read_variants; list(read_variants('x.vcf'))",
        ),
        ("Bio", "from reformer.genomics.formats.genbank import read_genbank; list(read_genbank('x.gb'))"),
        ("gemmi", "from reformer.genomics.formats.structures import read_structure; read_structure('x.pdb')"),
        (
            "pybigtools",
            "from reformer.genomics.formats.tracks import write_bigwig; write_bigwig('x', {}, [])",
        ),
        ("pyarrow", "from reformer.genomics.formats.tables import write_parquet; write_parquet('x', [])"),
        ("h5py", "from reformer.genomics.formats.tables import write_hdf5; write_hdf5('x', [])"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(library, call):
    # None in sys.modules is how Python says that a module cannot be imported.
    code = f"import sys; sys.modules[{library!r}] = None; {call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    package = "biopython" if library == "Bio" else library
    last = done.stderr.splitlines()[-1]
    assert f"UserError: {package} is needed to " in last
    assert last.endswith("pip install 'reformer-torch[genomics]'")


def test_no_library_is_imported_before_it_is_used():
    formats = [f"formats.{name}" for name in ("annotation", "bed", "structures", "tables", "tracks")]
    modules = [*formats, "genome", "variants.vcf"]
    code = "".join(f"import reformer.genomics.{name}\n" for name in modules)
    code += "import sys; print({'pysam', 'Bio', 'gemmi', 'pybigtools'} & sys.modules.keys())"
    code += "; print({'pyarrow', 'h5py', 'torch'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\nset()\n"
