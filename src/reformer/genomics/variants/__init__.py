"""What a variant changes: VCF in, scored VCF out."""
