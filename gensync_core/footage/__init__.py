"""The footage gate: what is wrong with a video before hours are spent on it."""
