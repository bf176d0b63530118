"""Secondary structure of proteins, learnt from PDB and mmCIF files."""
