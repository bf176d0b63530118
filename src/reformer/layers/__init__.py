"""Modules on the ops: kinds of attention, feed-forward, positions, the reversible stack."""
