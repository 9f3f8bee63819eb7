"""CPU kernel for the last step of a frame: layers over the plate, into bytes, in one pass over memory."""

import numpy as np

from gensync_core.gaussians.backends.cpu_runtime import kernel

_ZERO, _ONE, _MAX = np.float32(0), np.float32(1), np.float32(255)


@kernel
def blend_rows(first, last, head, head_alpha, torso, torso_alpha, plate, frame):
    """Rows [first, last) of `frame` [H, W, 3] uint8: premultiplied head over premultiplied torso over the plate."""
    for y in range(first, last):
        for x in range(head.shape[1]):
            past_head, past_torso = _ONE - head_alpha[y, x], _ONE - torso_alpha[y, x]
            for c in range(3):
                value = head[y, x, c] + past_head * (torso[y, x, c] + past_torso * plate[y, x, c])
                frame[y, x, c] = np.uint8(np.rint(min(max(value, _ZERO), _ONE) * _MAX))
