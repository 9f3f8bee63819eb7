"""Optimisation: static start, joint training of a cohort, adaptation of a new speaker."""
