"""Measures of a trained avatar against held-out footage, and the report that shows them."""
