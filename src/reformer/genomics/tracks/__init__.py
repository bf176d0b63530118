"""Models that say what an experiment would measure along a genome: trained on bigWig, predicting bigWig."""
