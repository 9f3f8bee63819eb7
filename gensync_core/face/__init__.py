"""Where the face is in a frame, how it is posed, what it does, and which pixel belongs to what."""
