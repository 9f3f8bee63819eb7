"""A portrait's head as a 3D mesh with the portrait as its texture: rest shape, triangles, what follows what.

Shapes: V points (478 landmarks, then a grid over hair, neck and surroundings), F triangles.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import Delaunay, KDTree

from gensync_core.face import regions
from gensync_core.face.canonical import canonical_face
from gensync_core.geometry.camera import Intrinsics, project, unproject
from gensync_core.geometry.rotation import rotvec_to_matrix
from gensync_core.samples.face_motion import FaceFields, face_fields

_FOCAL = 2.5  # of the image's width
_GRID = 0.2  # of the inter-ocular distance
_DEPTH_SLOPE = 0.35  # how fast hair recedes behind the outline of the face
_DEEPEST = 1.0  # of the inter-ocular distance
_TRIANGULATED_APERTURE = 0.25  # lips must be apart, for no triangle to bridge them
_NECK_JOINT = (0.0, 0.45, 0.75)  # from the head's centre, decimetre: about where the head nods


class HeadModel(NamedTuple):
    """The head at rest.

    Attributes:
        points_px: where the points are in the portrait.
        depth: of the points along the camera's z axis, decimetre.
        triangles: over the points; the open mouth is a hole.
        follow: how far a point follows the head, 0 to 1.
        fields: displacements of the points by the face's signals.
        camera: the camera that the video is seen through.
        head_to_camera: pose of the canonical head frame at rest.
        pivot: point in the camera's frame about which the head turns.
    """

    points_px: Float[np.ndarray, "V 2"]
    depth: Float[np.ndarray, "V"]
    triangles: Int[np.ndarray, "F 3"]
    follow: Float[np.ndarray, "V"]
    fields: FaceFields
    camera: Intrinsics
    head_to_camera: Float[np.ndarray, "4 4"]
    pivot: Float[np.ndarray, "3"]

    @property
    def span_px(self) -> float:
        """Inter-ocular distance in the portrait."""
        eyes = self.points_px[[regions.RIGHT_EYE_OUTER, regions.LEFT_EYE_OUTER]]
        return float(np.linalg.norm(eyes[0] - eyes[1]))


class PosedHead(NamedTuple):
    """One frame: points in px, their depth in decimetre, and the pose of the canonical head frame."""

    points_px: Float[np.ndarray, "V 2"]
    depth: Float[np.ndarray, "V"]
    head_to_camera: Float[np.ndarray, "4 4"]


def build_head(landmarks: Float[np.ndarray, "478 3"], follow: Float[np.ndarray, "H W"]) -> HeadModel:
    """Lift a portrait into 3D.

    Args:
        landmarks: of the face mesh, px of the portrait.
        follow: how far each pixel follows the head.
    """
    height, width = follow.shape
    landmarks = landmarks.astype(np.float64)
    camera = Intrinsics(_FOCAL * width, _FOCAL * width, width / 2, height / 2, width, height)
    span = float(np.linalg.norm(landmarks[regions.RIGHT_EYE_OUTER, :2] - landmarks[regions.LEFT_EYE_OUTER, :2]))
    grid = _surroundings(landmarks[:, :2], width, height, span)
    points = np.concatenate([landmarks[:, :2], grid])
    fields = face_fields(landmarks, points)
    oval = landmarks[list(regions.FACE_OVAL)]
    grid_depth = _extend_depth(oval, grid, span)
    relative_depth = np.concatenate([landmarks[:, 2], grid_depth])

    vertices, _ = canonical_face()
    scale, _, _ = fit_similarity(vertices.astype(np.float64), landmarks[: regions.NUM_MESH_LANDMARKS])
    depth = _FOCAL * width / scale + relative_depth / scale
    lifted = unproject(points, depth, camera.matrix().astype(np.float64))
    _, rotation, translation = fit_similarity(vertices.astype(np.float64), lifted[: regions.NUM_MESH_LANDMARKS], scale=1.0)
    head_to_camera = np.eye(4)
    head_to_camera[:3, :3], head_to_camera[:3, 3] = rotation, translation

    columns, rows = np.clip(grid.astype(int), 0, (width - 1, height - 1)).T
    return HeadModel(
        points_px=points,
        depth=depth,
        triangles=_triangulate(points + fields.displacement(_TRIANGULATED_APERTURE, 0.0, 0.0)),
        follow=np.concatenate([np.ones(regions.NUM_LANDMARKS), follow[rows, columns]]),
        fields=fields,
        camera=camera,
        head_to_camera=head_to_camera,
        pivot=translation + rotation @ np.array(_NECK_JOINT),
    )


def pose_head(
    model: HeadModel, displacement_px: Float[np.ndarray, "V 2"], yaw_pitch_roll_deg: np.ndarray, shift: np.ndarray
) -> PosedHead:
    """Move the face by `displacement_px`, then the head rigidly about its pivot, as far as each point follows it."""
    K = model.camera.matrix().astype(np.float64)
    return turn_head(model, unproject(model.points_px + displacement_px, model.depth, K), yaw_pitch_roll_deg, shift)


def turn_head(
    model: HeadModel, points: Float[np.ndarray, "V 3"], yaw_pitch_roll_deg: np.ndarray, shift: np.ndarray
) -> PosedHead:
    """Move the head rigidly about its pivot, with `points` (camera's frame) of its surface as far as each follows it."""
    movement = np.eye(4)
    movement[:3, :3] = rotation_of(yaw_pitch_roll_deg)
    movement[:3, 3] = model.pivot + shift - movement[:3, :3] @ model.pivot
    moved = (points - model.pivot) @ movement[:3, :3].T + model.pivot + shift
    points = points + model.follow[:, None] * (moved - points)
    K = model.camera.matrix().astype(np.float64)
    return PosedHead(project(points, K), points[:, 2], movement @ model.head_to_camera)


def rotation_of(yaw_pitch_roll_deg: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """Rotation about the camera's axes: roll (z) first, then pitch (x), then yaw (y)."""
    yaw, pitch, roll = np.deg2rad(np.asarray(yaw_pitch_roll_deg, dtype=np.float64))
    turns = rotvec_to_matrix(np.array([[0, yaw, 0], [pitch, 0, 0], [0, 0, roll]]))
    return turns[0] @ turns[1] @ turns[2]


def fit_similarity(
    source: Float[np.ndarray, "N 3"], target: Float[np.ndarray, "N 3"], scale: float | None = None
) -> tuple[float, Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """Scale, rotation and translation that bring `source` closest to `target`; with `scale` given, only the rest.

    Source: Umeyama (1991).
    """
    from_centre, to_centre = source.mean(axis=0), target.mean(axis=0)
    centred, wanted = source - from_centre, target - to_centre
    left, stretch, right = np.linalg.svd(wanted.T @ centred)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = (left * signs) @ right
    if scale is None:
        scale = float((stretch * signs).sum() / (centred**2).sum())
    return scale, rotation, to_centre - scale * rotation @ from_centre


def _surroundings(landmarks: np.ndarray, width: int, height: int, span: float) -> np.ndarray:
    """A grid over the image, less where landmarks are near, and reaching over its edges."""
    step = _GRID * span
    x, y = np.meshgrid(np.arange(-step, width + 1.5 * step, step), np.arange(-step, height + 1.5 * step, step))
    grid = np.stack([x.ravel(), y.ravel()], axis=1)
    distance, _ = KDTree(landmarks).query(grid)
    oval = landmarks[list(regions.FACE_OVAL)]
    return grid[(distance > 0.7 * step) & ~_inside(oval, grid)]


def _inside(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    from matplotlib.path import Path as Polygon

    return Polygon(polygon).contains_points(points)


def _extend_depth(oval: np.ndarray, grid: np.ndarray, span: float) -> np.ndarray:
    """Depth in px: that of the nearby outline of the face, receding with the distance from it."""
    distance = np.linalg.norm(grid[:, None] - oval[None, :, :2], axis=-1)
    weight = 1.0 / (distance + 0.05 * span) ** 3
    near = (weight * oval[:, 2]).sum(axis=1) / weight.sum(axis=1)
    return np.minimum(near + _DEPTH_SLOPE * distance.min(axis=1), max(_DEEPEST * span, oval[:, 2].max()))


def _triangulate(points: np.ndarray) -> np.ndarray:
    """Delaunay triangles without the irises, whose points do not move with the lids, and without the hole of the mouth."""
    used = np.concatenate([np.arange(regions.NUM_MESH_LANDMARKS), np.arange(regions.NUM_LANDMARKS, len(points))])
    triangles = used[Delaunay(points[used]).simplices]
    inner = np.isin(triangles, regions.LIPS_INNER).all(axis=1)
    return triangles[~inner].astype(np.int32)
