"""Head poses, camera and the speaker's own face shape from landmarks: bundle adjustment over a whole clip.

Unknowns: one focal length, a pose per frame, the speaker's rigid shape (offsets on the canonical face). Gauss-Newton on poses
and focal length together (a block-banded system with one border column), alternating with the shape. Landmarks that move with
speech, blinks and brows count little; the second difference of the poses is held small, which removes jitter.

Shapes: T frames of the clip, F frames with a face, N = 478 landmarks. Source: own choice of a standard method.
"""

import logging
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import solveh_banded

from gensync_core.errors import FootageRejected
from gensync_core.face import regions
from gensync_core.face.canonical import canonical_landmarks
from gensync_core.geometry import rotation
from gensync_core.geometry.camera import Intrinsics, pose_matrix

_LOG = logging.getLogger(__name__)
_FPS = 25
_SHAPE_ROUNDS, _POSE_STEPS = 4, 2
_SHAPE_FRAMES = 300  # the shape is fitted on at most so many frames, evenly spread
_INDEPENDENT_FRAMES = 50.0
_LOST_TRUST = 0.05  # weight of landmarks that were interpolated: enough to keep a pose from drifting away
_POSE_SIZE = 6
_BANDS = 3 * _POSE_SIZE
_OUTLIER = 3.0  # residuals beyond so many times their median lose weight
_INDEPENDENT_LANDMARKS = 12.0  # errors of neighbouring landmarks are alike: all together tell as much as this many


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackParams:
    """How the head is tracked.

    Attributes:
        focal_prior: expected focal length over the clip's width; 2.5 for a face that fills half of it.
        focal_sigma: how far the logarithm of the focal length may stray from that.
        landmark_sigma: error expected of a landmark, over the inter-ocular distance.
        rotation_acceleration_deg: expected second difference of the rotation, degrees a frame squared.
        translation_acceleration_dm: the same of the translation; along the view axis it is this times focal length over width.
        shape_sigma_dm: how far a speaker's face may differ from the canonical one.
        max_lost_share: a clip with a larger share of frames without a face is rejected.
    """

    focal_prior: float = 2.5
    focal_sigma: float = 0.3
    landmark_sigma: float = 0.02
    rotation_acceleration_deg: float = 0.5
    translation_acceleration_dm: float = 0.015
    shape_sigma_dm: float = 0.03
    max_lost_share: float = 0.5

    def __post_init__(self) -> None:
        if not 0.5 <= self.focal_prior <= 20:
            raise ValueError(f"focal_prior must lie in [0.5, 20], got {self.focal_prior}")
        if not 0 <= self.max_lost_share < 1:
            raise ValueError(f"max_lost_share must lie in [0, 1), got {self.max_lost_share}")
        for name in (
            *("focal_sigma", "landmark_sigma", "rotation_acceleration_deg"),
            *("translation_acceleration_dm", "shape_sigma_dm"),
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Track:
    """A tracked clip; lost frames are filled from their neighbours.

    Attributes:
        landmarks_px: [T, 478, 3].
        head_to_camera: [T, 4, 4] canonical to camera, decimetre.
        canonical_landmarks: [478, 3] the speaker's mean shape in the canonical frame.
        canonical_motion: [T, 478, 3] what each landmark does about its mean; it reprojects onto `landmarks_px`.
        confidence: [T] 0 to 1: what the detector gave, less where the mesh does not fit; 0 for lost frames.
        interpolated: [T] true for frames without a face of their own.
        camera: one for the clip.
        reprojection_px: median distance of the rigid landmarks from the posed mean shape.
    """

    landmarks_px: Float[np.ndarray, "T 478 3"]
    head_to_camera: Float[np.ndarray, "T 4 4"]
    canonical_landmarks: Float[np.ndarray, "478 3"]
    canonical_motion: Float[np.ndarray, "T 478 3"]
    confidence: Float[np.ndarray, "T"]
    interpolated: Bool[np.ndarray, "T"]
    camera: Intrinsics
    reprojection_px: float


@dataclass(frozen=True, slots=True)
class _State:
    """What is being estimated; float64. rotations [T, 3, 3], translations [T, 3] dm, focal px, shape [N, 3] dm."""

    rotations: np.ndarray
    translations: np.ndarray
    focal: float
    shape: np.ndarray


def track(
    landmarks_px: Float[np.ndarray, "T 478 3"],
    confidence: Float[np.ndarray, "T"],
    width: int,
    height: int,
    params: TrackParams | None = None,
) -> Track:
    """Track a clip.

    Args:
        landmarks_px: landmarks of each frame; rows of NaN where no face was found.
        confidence: the detector's, 0 to 1.
        width: of the clip in px.
        height: of the clip in px.
        params: how to track.

    Raises:
        FootageRejected: too many frames show no face.
    """
    params = params or TrackParams()
    found = np.asarray(np.isfinite(landmarks_px).all(axis=(1, 2)))
    _check_enough(found, params)
    filled = _fill_lost(landmarks_px.astype(np.float64), found)
    adjustment = _Adjustment(filled, found, width, height, params)
    state = adjustment.solve()
    residuals = np.linalg.norm(adjustment.residuals(state), axis=-1)[:, rigid_weights() >= 1]
    fit = np.median(residuals, axis=1)
    typical = float(np.median(fit[found]))
    fit_confidence = np.clip(2.0 * max(typical, 1e-6) / np.maximum(fit, 1e-9), 0, 1)  # full up to twice the usual residual
    shape, motion = _lift(filled, state, adjustment.centre)
    camera = Intrinsics(state.focal, state.focal, width / 2, height / 2, width, height)
    _LOG.info(
        "tracked %d frames: focal %.0f px, reprojection %.2f px, %d lost", len(found), state.focal, typical, (~found).sum()
    )
    return Track(
        landmarks_px=filled.astype(np.float32),
        head_to_camera=pose_matrix(state.rotations, state.translations).astype(np.float32),
        canonical_landmarks=shape.astype(np.float32),
        canonical_motion=motion.astype(np.float32),
        confidence=np.where(found, confidence * fit_confidence, 0).astype(np.float32),
        interpolated=~found,
        camera=camera,
        reprojection_px=typical,
    )


def rigid_weights() -> Float[np.ndarray, "478"]:
    """How much each landmark tells about the skull: 1 for forehead, nose, cheekbones, temples and eye corners, else less."""
    mesh = canonical_landmarks()
    weights = np.ones(regions.NUM_LANDMARKS)
    weights[list(regions.FACE_OVAL)] = 0.2  # slides along the visible rim of a turning head
    below_nose = mesh[:, 1] > mesh[regions.NOSE_BASE, 1]
    weights[below_nose] = 0.0
    weights[list(regions.LEFT_EYEBROW + regions.RIGHT_EYEBROW)] = 0.1
    for eye in (regions.LEFT_EYE, regions.RIGHT_EYE):
        weights[list(eye)] = 0.05
    corners = (regions.LEFT_EYE_INNER, regions.LEFT_EYE_OUTER, regions.RIGHT_EYE_INNER, regions.RIGHT_EYE_OUTER)
    weights[list(corners)] = 1.0
    weights[regions.NUM_MESH_LANDMARKS :] = 0.0
    return weights


def _check_enough(found: np.ndarray, params: TrackParams) -> None:
    lost_share = 1 - found.mean() if len(found) else 1.0
    if lost_share <= params.max_lost_share and found.any():
        return
    where = f"first at {np.argmin(found) / _FPS:.1f} s" if len(found) else "the clip is empty"
    raise FootageRejected(
        f"no face in {lost_share:.0%} of the frames ({where}); use footage in which the face is seen throughout"
    )


def _fill_lost(landmarks: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Landmarks [T, N, 3] with lost rows interpolated in time."""
    seen, times = np.flatnonzero(found), np.arange(len(found))
    after = np.clip(np.searchsorted(seen, times), 0, len(seen) - 1)
    before = np.where(found, after, np.maximum(after - 1, 0))
    before = np.where(times > seen[-1], len(seen) - 1, before)
    first, last = seen[before], seen[after]
    share = np.clip((times - first) / np.maximum(last - first, 1), 0, 1)[:, None, None]
    return (1 - share) * landmarks[first] + share * landmarks[last]


class _Adjustment:
    """The least-squares problem of one clip."""

    def __init__(self, landmarks: np.ndarray, found: np.ndarray, width: int, height: int, params: TrackParams) -> None:
        self.observed = landmarks[..., :2]
        self.found = found
        self.width = width
        self.centre = np.array([width / 2, height / 2])
        self.params = params
        self.canonical = canonical_landmarks().astype(np.float64)
        self.rigid = rigid_weights()
        eyes = landmarks[:, regions.RIGHT_EYE_OUTER, :2] - landmarks[:, regions.LEFT_EYE_OUTER, :2]
        self.eye_distance_px = float(np.median(np.linalg.norm(eyes, axis=-1)[found]))
        self.sigma_px = params.landmark_sigma * self.eye_distance_px

    def solve(self) -> _State:
        """Alternate between poses with focal length, and shape."""
        state = self._start()
        for index in range(_SHAPE_ROUNDS):
            for _ in range(_POSE_STEPS if index else 3 * _POSE_STEPS):
                state = self._step_poses(state)
            if index < _SHAPE_ROUNDS - 1:
                state = self._step_shape(state)
        return state

    def residuals(self, state: _State) -> np.ndarray:
        """Observed minus projected, px [T, N, 2]."""
        _, projected = self._project(state)
        return self.observed - projected

    def _start(self) -> _State:
        """Weak-perspective poses: the best affine map of the canonical face onto the landmarks, made a rotation."""
        focal = self.params.focal_prior * self.width
        weights = self.rigid / self.rigid.sum()
        mean = weights @ self.canonical
        model = self.canonical - mean
        observed_mean = np.einsum("n,tnc->tc", weights, self.observed)
        gram = np.linalg.inv((model * weights[:, None]).T @ model)
        affine = np.einsum("n,tnc,nd->tcd", weights, self.observed - observed_mean[:, None], model) @ gram
        left, singular, right = np.linalg.svd(affine, full_matrices=False)
        rows = left @ right
        rotations = np.concatenate([rows, np.cross(rows[:, 0], rows[:, 1])[:, None]], axis=1)
        depth = focal / np.maximum(singular.mean(axis=-1), 1e-6)
        offset = (observed_mean - self.centre) / focal * depth[:, None]
        translations = np.column_stack([offset, depth]) - rotations @ mean
        return _State(rotations, translations, focal, self.canonical)

    def _project(self, state: _State) -> tuple[np.ndarray, np.ndarray]:
        points = state.shape @ state.rotations.swapaxes(1, 2) + state.translations[:, None]
        return points, state.focal * points[..., :2] / points[..., 2:] + self.centre

    def _weights(self, residuals: np.ndarray, rigid: np.ndarray) -> np.ndarray:
        """Weights [T, N] of squared residuals in px: rigid landmarks of found frames, outliers down (Cauchy)."""
        length = np.linalg.norm(residuals, axis=-1)
        scale = _OUTLIER * max(float(np.median(length[self.found][:, rigid >= 1])), 1e-3)
        robust = 1 / (1 + (length / scale) ** 2)
        trust = np.where(self.found, 1.0, _LOST_TRUST)[:, None]
        return robust * trust * (rigid / rigid.sum() * _INDEPENDENT_LANDMARKS / self.sigma_px**2)

    def _step_poses(self, state: _State) -> _State:
        used = np.flatnonzero(self.rigid)
        points, projected = self._project(replace(state, shape=state.shape[used]))
        residuals = self.observed[:, used] - projected
        num_frames = len(points)
        jacobian = _pose_jacobian(points - state.translations[:, None], points, state.focal)
        jacobian = jacobian.reshape(num_frames, -1, _POSE_SIZE)
        by_focal = (projected - self.centre).reshape(num_frames, -1)  # derivative by the focal length's logarithm
        weights = np.repeat(self._weights(residuals, self.rigid[used]), 2, axis=1)
        residuals = residuals.reshape(num_frames, -1)
        weighted = (jacobian * weights[..., None]).swapaxes(1, 2)
        banded = _banded(weighted @ jacobian)
        gradient = (weighted @ residuals[..., None]).ravel()
        border = (weighted @ by_focal[..., None]).ravel()
        self._add_smoothness(banded, gradient, state)
        # The prior speaks for every frame: the depth of a face says little about the focal length, and says it with a bias.
        prior = num_frames / self.params.focal_sigma**2
        corner = float((weights * by_focal**2).sum()) + prior
        pull = float((weights * by_focal * residuals).sum())
        pull += prior * np.log(self.params.focal_prior * self.width / state.focal)
        solved = solveh_banded(banded, np.column_stack([gradient, border]), lower=True)
        focal_step = (pull - border @ solved[:, 0]) / (corner - border @ solved[:, 1])
        focal_step = float(np.clip(focal_step, -0.2, 0.2))
        steps = (solved[:, 0] - solved[:, 1] * focal_step).reshape(num_frames, _POSE_SIZE)
        return replace(
            state,
            rotations=rotation.rotvec_to_matrix(steps[:, :3]) @ state.rotations,
            translations=state.translations + steps[:, 3:],
            focal=state.focal * float(np.exp(focal_step)),
        )

    def _add_smoothness(self, banded: np.ndarray, gradient: np.ndarray, state: _State) -> None:
        """Add the prior on second differences of the poses to the normal equations, in place."""
        num_frames = len(state.rotations)
        banded[0] += 1e-6
        if num_frames < 3:
            return
        sideways = self.params.translation_acceleration_dm
        sigma = np.array([np.radians(self.params.rotation_acceleration_deg)] * 3 + [sideways, sideways, sideways])
        sigma[5] *= state.focal / self.width
        turns = rotation.matrix_to_rotvec(state.rotations[1:] @ state.rotations[:-1].swapaxes(1, 2))
        acceleration = np.concatenate([np.diff(turns, axis=0), np.diff(state.translations, n=2, axis=0)], axis=1)
        weight = 1 / sigma**2
        stencil = (1.0, -2.0, 1.0)
        per_frame = gradient.reshape(num_frames, _POSE_SIZE)
        for first, outer in enumerate(stencil):
            per_frame[first : first + num_frames - 2] -= outer * weight * acceleration
            for second in range(first + 1):
                frames = np.arange(num_frames - 2) + second
                columns = (frames[:, None] * _POSE_SIZE + np.arange(_POSE_SIZE)).ravel()
                offset = (first - second) * _POSE_SIZE
                np.add.at(banded[offset], columns, np.tile(outer * stencil[second] * weight, num_frames - 2))

    def _step_shape(self, state: _State) -> _State:
        """One Gauss-Newton step for every landmark's offset, then back into the canonical face's gauge."""
        seen = np.flatnonzero(self.found)
        chosen = seen[np.linspace(0, len(seen) - 1, min(len(seen), _SHAPE_FRAMES)).astype(int)]
        points, projected = self._project(
            replace(state, rotations=state.rotations[chosen], translations=state.translations[chosen])
        )
        residuals = self.observed[chosen] - projected
        length = np.linalg.norm(residuals, axis=-1, keepdims=True)
        robust = 1 / (1 + (length / (_OUTLIER * max(float(np.median(length)), 1e-3))) ** 2)
        jacobian = _point_jacobian(points, state.focal) @ state.rotations[chosen][:, None]
        # Errors are the same for many frames in a row, so that frames add up to far fewer observations.
        share = min(1.0, _INDEPENDENT_FRAMES / len(chosen)) / self.sigma_px**2
        weighted = jacobian * robust[..., None] * share
        hessian = np.einsum("tnci,tncj->nij", weighted, jacobian) + np.eye(3) / self.params.shape_sigma_dm**2
        gradient = np.einsum("tnci,tnc->ni", weighted, residuals)
        gradient -= (state.shape - self.canonical) / self.params.shape_sigma_dm**2
        shape = state.shape + np.linalg.solve(hessian, gradient[..., None])[..., 0]
        return replace(state, shape=_aligned(shape, self.canonical, self.rigid))


def _point_jacobian(points: np.ndarray, focal: float) -> np.ndarray:
    """Derivative of pixels by points in the camera's frame [.., 2, 3]."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    jacobian = np.zeros((*points.shape[:-1], 2, 3))
    jacobian[..., 0, 0] = jacobian[..., 1, 1] = focal / z
    jacobian[..., 0, 2] = -focal * x / z**2
    jacobian[..., 1, 2] = -focal * y / z**2
    return jacobian


def _pose_jacobian(arms: np.ndarray, points: np.ndarray, focal: float) -> np.ndarray:
    """Derivative of pixels by a small turn about the head's centre and a translation [T, N, 2, 6]; `arms`: turned points."""
    by_point = _point_jacobian(points, focal)
    by_rotation = -by_point @ rotation.skew(arms)
    return np.concatenate([by_rotation, by_point], axis=-1)


def _banded(blocks: np.ndarray) -> np.ndarray:
    """Lower banded storage [18, 6 T] of a block-diagonal matrix [T, 6, 6], with room for two more blocks below."""
    num_frames = len(blocks)
    banded = np.zeros((_BANDS, num_frames * _POSE_SIZE))
    for column in range(_POSE_SIZE):
        for row in range(column, _POSE_SIZE):
            banded[row - column, column::_POSE_SIZE] = blocks[:, row, column]
    return banded


def _aligned(shape: np.ndarray, target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`shape` turned, moved and scaled so that its rigid part lies on the target's.

    Source: Umeyama (1991).
    """
    share = weights / weights.sum()
    shape_mean, target_mean = share @ shape, share @ target
    source, goal = shape - shape_mean, target - target_mean
    left, singular, right = np.linalg.svd((goal * share[:, None]).T @ source)
    sign = np.array([1, 1, np.sign(np.linalg.det(left @ right))])
    scale = (singular * sign).sum() / (share @ (source**2).sum(axis=1))
    return scale * source @ ((left * sign) @ right).T + target_mean


def _lift(landmarks: np.ndarray, state: _State, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean shape [N, 3], and displacements [T, N, 3] about it that reproject onto the landmarks.

    Of all displacements that explain a pixel the one is taken that is least likely to be depth: `spread` holds how far a
    landmark moves along each canonical axis.
    """
    spread = np.array([0.1, 0.1, 0.03]) ** 2
    shape = state.shape
    motion = np.zeros((len(landmarks), *shape.shape))
    for index in range(2):
        points = (shape + motion) @ state.rotations.swapaxes(1, 2) + state.translations[:, None]
        residuals = landmarks[..., :2] - state.focal * points[..., :2] / points[..., 2:] - centre
        jacobian = _point_jacobian(points, state.focal) @ state.rotations[:, None]
        spread_jacobian = spread[:, None] * jacobian.swapaxes(-1, -2)
        motion = motion + (spread_jacobian @ np.linalg.solve(jacobian @ spread_jacobian, residuals[..., None]))[..., 0]
        if index == 0:
            mean = np.median(motion, axis=0)
            shape, motion = shape + mean, motion - mean
    return shape, motion
