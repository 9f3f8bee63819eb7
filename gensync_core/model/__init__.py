"""The shared network and what a speaker owns."""
