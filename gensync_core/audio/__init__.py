"""Speech: waveforms, features on the frame grid, and the windows that the network reads."""
