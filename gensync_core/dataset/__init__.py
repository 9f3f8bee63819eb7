"""Frames of a clip together with the conditions they are trained under."""
