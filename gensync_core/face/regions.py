"""What a pixel can be (`Region`), and which landmarks of the 478-point mesh outline what.

Left and right are the speaker's own: the left eye of a person who looks at us is on the right of the image.
Rings are closed polygons in order; the last point joins the first.
"""

from enum import IntEnum

NUM_LANDMARKS = 478
NUM_MESH_LANDMARKS = 468  # the irises (468-477) are points of their own, not vertices of the canonical mesh


class Region(IntEnum):
    """Label ids of `masks.mkv`, one per pixel."""

    BACKGROUND = 0
    TORSO = 1
    NECK = 2
    HAIR = 3
    FACE = 4
    LIPS = 5
    MOUTH = 6
    EYES = 7


HEAD = (Region.HAIR, Region.FACE, Region.LIPS, Region.MOUTH, Region.EYES)
BODY = (Region.TORSO, Region.NECK)

FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
# From the speaker's left ear over the chin to the right ear.
JAW = FACE_OVAL[8:29]
LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
LIPS = LIPS_OUTER + LIPS_INNER
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
RIGHT_EYEBROW = (46, 53, 52, 65, 55, 107, 66, 105, 63, 70)
LEFT_EYEBROW = (276, 283, 282, 295, 285, 336, 296, 334, 293, 300)
RIGHT_IRIS = (468, 469, 470, 471, 472)  # centre first
LEFT_IRIS = (473, 474, 475, 476, 477)

# Single points.
RIGHT_EYE_OUTER, RIGHT_EYE_INNER, LEFT_EYE_INNER, LEFT_EYE_OUTER = 33, 133, 362, 263
UPPER_INNER_LIP, LOWER_INNER_LIP = 13, 14
RIGHT_MOUTH_CORNER, LEFT_MOUTH_CORNER = 61, 291
NOSE_TIP, NOSE_BASE, CHIN, FOREHEAD_TOP = 1, 2, 152, 10
