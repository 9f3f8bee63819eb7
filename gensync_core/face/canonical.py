"""The canonical face: MediaPipe's average head surface in our canonical frame.

Origin at the centroid of the mesh, x to the image's right, y down, z away from the camera, in decimetre. A face that looks
straight at the camera has the identity rotation; its nose has the most negative z.

Source: canonical face model of MediaPipe Face Geometry (Apache-2.0, see NOTICE), axes flipped from OpenGL's, cm to dm.
"""

import functools
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from gensync_core.face import regions

LIP_CENTRES = (13, 14)
"""Landmarks in the middle of the upper and the lower lip's inner edge."""
_FILE = Path(__file__).with_name("canonical_face.npz")
_IRIS_RADIUS_DM = 0.0585
_IRIS_DEPTH_DM = -0.03  # the cornea stands before the plane of the lids' edges


@functools.lru_cache(maxsize=1)
def _load() -> tuple[np.ndarray, np.ndarray]:
    with np.load(_FILE) as arrays:
        vertices, triangles = arrays["vertices"], arrays["triangles"]
    vertices.setflags(write=False)
    triangles.setflags(write=False)
    return vertices, triangles


def canonical_face() -> tuple[Float[np.ndarray, "468 3"], Int[np.ndarray, "F 3"]]:
    """Vertices in decimetre and triangles, counter-clockwise as seen from outside in a right-handed frame; read-only."""
    return _load()


def canonical_landmarks() -> Float[np.ndarray, "478 3"]:
    """The vertices and, after them, the irises, which the mesh does not have: centred in the eye contours."""
    vertices, _ = _load()
    irises = []
    for eye in (regions.RIGHT_EYE, regions.LEFT_EYE):
        centre = vertices[list(eye)].mean(axis=0) + np.array([0, 0, _IRIS_DEPTH_DM])
        ring = np.array([[0, 0, 0], [1, 0, 0], [0, -1, 0], [-1, 0, 0], [0, 1, 0]])  # centre, right, up, left, down
        irises.append(centre + _IRIS_RADIUS_DM * ring)
    return np.concatenate([vertices, *irises]).astype(np.float32)


CANONICAL_BOX_DM = 1.6
"""Half a side of the canonical box [-1, 1]^3, in which all speakers' faces lie."""


def canonical_mouth() -> Float[np.ndarray, "3"]:
    """The mouth's centre in the canonical box."""
    return (_load()[0][list(LIP_CENTRES)].mean(axis=0) / CANONICAL_BOX_DM).astype(np.float32)
