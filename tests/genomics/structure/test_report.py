import html
import re

from reformer.genomics.structure.metrics import ChainResult
from reformer.genomics.structure.report import sections


def test_q3_q8_confusion_and_chains_are_on_the_page():
    results = [ChainResult("x.pdb:A", "HHGT", "HGGS"), ChainResult("x.pdb:<B>", "E" * 10, "B" * 9 + "E")]
    page = sections({"validation": results, "test": results[:1]}, "HGIEBTSC", ["y.pdb: no atoms"])
    words = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))
    assert "Chains 2 14 residues" in words
    assert "Q3 1.0000 mean over chains" in words
    assert "Q8 0.3000 mean over chains" in words
    assert "By residue 0.2143" in words
    assert "Always E, strand 0.5000" in words
    assert "E, strand 0 0 0 1 9 0 0 0 1.0000 0.1000" in words
    assert "I, pi helix 0 0 0 0 0 0 0 0" in words
    assert words.index("x.pdb:<B> 10 1.0000 0.1000") < words.index("x.pdb:A 4 1.0000 0.5000")
    assert "1 files and chains are not used y.pdb: no atoms" in words
    assert "<B>" not in page
    chosen, unseen = page.index("checkpoint was chosen by these"), page.index("no choice was made by these")
    assert page.index("structure: validation") < chosen < page.index("structure: test") < unseen
