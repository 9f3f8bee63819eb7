"""Footage in, clips and videos out: ffmpeg, probing, decoded frames."""
