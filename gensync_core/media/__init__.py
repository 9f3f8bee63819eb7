"""Footage in, clips and videos out: ffmpeg, probing, the footage gate, decoded frames."""
