"""Gives a stage to an executor: what is asked of DVC, and the one Prefect task that runs one stage."""
