"""Rotations and pinhole cameras. OpenCV axes: x right, y down, z forward; quaternions wxyz; pixel centres at +0.5."""
