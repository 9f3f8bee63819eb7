"""Head poses, camera and the speaker's own face shape from landmarks: bundle adjustment over a whole clip.

Unknowns: one focal length, a pose per frame, the speaker's rigid shape (offsets on the canonical face). Gauss-Newton on poses
and focal length together (a block-banded system with one border column), alternating with the shape. Landmarks that move with
speech, blinks and brows count little; the second difference of the poses is held small, which removes jitter. Where points of
the skin were followed by their pixels (`skin_points`) they say most, and the landmarks say where the face is on them.

Shapes: T frames of the clip, K points of the skin, N = 478 landmarks and them. Source: own choice of a standard method.
"""

import logging
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import solveh_banded

from gensync_core.errors import FootageRejected
from gensync_core.face import regions
from gensync_core.face.canonical import canonical_landmarks
from gensync_core.face.pose_equations import FRAMES_AT_ONCE, POSE_SIZE, aligned, banded, lift, point_jacobian, pose_jacobian
from gensync_core.face.skin_points import SkinPoints
from gensync_core.face.track_params import TrackParams
from gensync_core.geometry import rotation
from gensync_core.geometry.camera import Intrinsics, pose_matrix

_LOG = logging.getLogger(__name__)
_FPS = 25
_SHAPE_ROUNDS, _POSE_STEPS = 4, 2
_SHAPE_FRAMES = 300  # the shape is fitted on at most so many frames, evenly spread
_INDEPENDENT_FRAMES = 50.0
_LOST_TRUST = 0.05  # weight of landmarks that were interpolated: enough to keep a pose from drifting away
_OUTLIER = 3.0  # residuals beyond so many times their median lose weight
_INDEPENDENT_LANDMARKS = 12.0  # errors of neighbouring landmarks are alike: all together tell as much as this many
_SKIN_SIGMA, _FLOW_SIGMA_PX = 0.004, 0.15  # error expected of a point of the skin, over the inter-ocular distance, and of flow
_INDEPENDENT_SKIN_POINTS = 20.0
_FEW_SKIN_POINTS = 20  # fewer than these in a frame count for less
_BESIDE_SKIN = 0.25  # weight of landmarks where there are points of the skin: their error grows with the turn of the head


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
class _Observations:
    """Points of one kind: where they lie [N, 3], where they are seen [T, N, 2], and how much that says.

    `weights` [T or 1, N] are those of squared residuals for poses, `certainty` [T or 1, N] for the shape, where each point
    stands for itself; both 1/px^2.
    """

    canonical: np.ndarray
    seen_px: np.ndarray
    weights: np.ndarray
    certainty: np.ndarray


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
    skin: SkinPoints | None = None,
) -> Track:
    """Track a clip.

    Args:
        landmarks_px: landmarks of each frame; rows of NaN where no face was found.
        confidence: the detector's, 0 to 1.
        width: of the clip in px.
        height: of the clip in px.
        params: how to track.
        skin: points that were followed by their pixels, for poses three to nine times as exact.

    Raises:
        FootageRejected: too many frames show no face.
    """
    params = params or TrackParams()
    found = np.asarray(np.isfinite(landmarks_px).all(axis=(1, 2)))
    _check_enough(found, params)
    filled = _fill_lost(landmarks_px.astype(np.float64), found)
    adjustment = _Adjustment(filled, found, width, height, params, skin)
    state = adjustment.solve()
    residuals = np.linalg.norm(adjustment.residuals(state), axis=-1)
    fit = np.median(residuals[:, np.flatnonzero(rigid_weights() >= 1)], axis=1)
    typical = float(np.median(fit[found]))
    fit_confidence = np.clip(2.0 * max(typical, 1e-6) / np.maximum(fit, 1e-9), 0, 1)  # full up to twice the usual residual
    pixels, landmark_shape = filled[..., :2] - adjustment.centre, state.shape[: regions.NUM_LANDMARKS]
    shape, motion = lift(pixels, landmark_shape, state.rotations, state.translations, state.focal)
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


def _mesh_observations(landmarks: np.ndarray, rigid: np.ndarray, sigma_px: float) -> _Observations:
    weights = rigid / rigid.sum() * _INDEPENDENT_LANDMARKS / sigma_px**2
    certainty = np.full_like(weights, 1 / sigma_px**2)
    return _Observations(canonical_landmarks().astype(np.float64), landmarks[..., :2], weights[None], certainty[None])


def _skin_observations(skin: SkinPoints, found: np.ndarray, sigma_px: float) -> _Observations:
    """Points of frames without a face do not count: what they follow may be a hand."""
    seen = np.isfinite(skin.seen_px).all(axis=-1) & found[:, None]
    certainty = seen / sigma_px**2
    weights = certainty * _INDEPENDENT_SKIN_POINTS / np.maximum(seen.sum(axis=1, keepdims=True), _FEW_SKIN_POINTS)
    pixels = np.where(seen[..., None], skin.seen_px, 0.0)
    return _Observations(skin.canonical.astype(np.float64), pixels.astype(np.float64), weights, certainty)


class _Adjustment:
    """The least-squares problem of one clip."""

    def __init__(
        self,
        landmarks: np.ndarray,
        found: np.ndarray,
        width: int,
        height: int,
        params: TrackParams,
        skin: SkinPoints | None = None,
    ) -> None:
        self.found = found
        self.width = width
        self.centre = np.array([width / 2, height / 2])
        self.params = params
        eyes = landmarks[:, regions.RIGHT_EYE_OUTER, :2] - landmarks[:, regions.LEFT_EYE_OUTER, :2]
        self.eye_distance_px = float(np.median(np.linalg.norm(eyes, axis=-1)[found]))
        rigid = rigid_weights()
        sets = [_mesh_observations(landmarks, rigid, params.landmark_sigma * self.eye_distance_px)]
        if skin is not None and len(skin.canonical):
            sets[0] = replace(sets[0], weights=_BESIDE_SKIN * sets[0].weights)
            sets.append(_skin_observations(skin, found, float(np.hypot(_SKIN_SIGMA * self.eye_distance_px, _FLOW_SIGMA_PX))))
        self.canonical = np.concatenate([part.canonical for part in sets])
        self.observed = np.concatenate([part.seen_px for part in sets], axis=1)
        self.weights = np.concatenate([np.broadcast_to(part.weights, part.seen_px.shape[:2]) for part in sets], axis=1)
        self.shape_weights = np.concatenate([np.broadcast_to(part.certainty, part.seen_px.shape[:2]) for part in sets], axis=1)
        self.gauge = np.concatenate([rigid, np.zeros(len(self.canonical) - len(rigid))])
        self.used = np.flatnonzero(self.weights.any(axis=0))
        self.is_skin = np.arange(len(self.canonical)) >= len(rigid)

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
        weights = self.gauge / self.gauge.sum()
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
        turned = (state.rotations.reshape(-1, 3) @ state.shape.T).reshape(-1, 3, len(state.shape))  # one large product
        points = turned.swapaxes(1, 2) + state.translations[:, None]
        return points, state.focal * points[..., :2] / points[..., 2:] + self.centre

    def _robust(self, residuals: np.ndarray, trusted: np.ndarray, is_skin: np.ndarray) -> np.ndarray:
        """Factors [F, N] that take weight off outliers (Cauchy), by the median of the `trusted` [F, N] of the same kind."""
        length = np.linalg.norm(residuals, axis=-1)
        for kind in (is_skin, ~is_skin):
            known = length[:, kind][trusted[:, kind]]
            length[:, kind] /= _OUTLIER * max(float(np.median(known)) if len(known) else np.inf, 1e-3)
        return 1 / (1 + length**2)

    def _pose_weights(self, residuals: np.ndarray) -> np.ndarray:
        """Weights [T, used] of squared residuals in px."""
        weights, is_skin = self.weights[:, self.used], self.is_skin[self.used]
        trusted = (weights > 0) & self.found[:, None] & (is_skin | (self.gauge[self.used] >= 1))
        trust = np.where(self.found, 1.0, _LOST_TRUST)[:, None]
        return self._robust(residuals, trusted, is_skin) * trust * weights

    def _step_poses(self, state: _State) -> _State:
        points, projected = self._project(replace(state, shape=state.shape[self.used]))
        residuals = self.observed[:, self.used] - projected
        weights = self._pose_weights(residuals)
        num_frames = len(weights)
        blocks, gradient, border = (np.zeros((num_frames, POSE_SIZE, *end)) for end in ((POSE_SIZE,), (), ()))
        corner = pull = 0.0
        for first in range(0, num_frames, FRAMES_AT_ONCE):
            part = slice(first, first + FRAMES_AT_ONCE)
            count = len(points[part])
            by_pose = pose_jacobian(points[part] - state.translations[part, None], points[part], state.focal)
            by_pose = by_pose.reshape(count, -1, POSE_SIZE)
            by_focal = (projected[part] - self.centre).reshape(count, -1)  # derivative by the focal length's logarithm
            pixels = residuals[part].reshape(count, -1)
            weight = np.repeat(weights[part], 2, axis=1)
            weighted = (by_pose * weight[..., None]).swapaxes(1, 2)
            blocks[part] = weighted @ by_pose
            gradient[part] = (weighted @ pixels[..., None])[..., 0]
            border[part] = (weighted @ by_focal[..., None])[..., 0]
            corner += float((weight * by_focal**2).sum())
            pull += float((weight * by_focal * pixels).sum())
        matrix, gradient, border = banded(blocks), gradient.ravel(), border.ravel()
        self._add_smoothness(matrix, gradient, state)
        # The prior speaks for every frame: the depth of a face says little about the focal length, and says it with a bias.
        prior = num_frames / self.params.focal_sigma**2
        corner += prior
        pull += prior * np.log(self.params.focal_prior * self.width / state.focal)
        solved = solveh_banded(matrix, np.column_stack([gradient, border]), lower=True)
        focal_step = (pull - border @ solved[:, 0]) / (corner - border @ solved[:, 1])
        focal_step = float(np.clip(focal_step, -0.2, 0.2))
        steps = (solved[:, 0] - solved[:, 1] * focal_step).reshape(num_frames, POSE_SIZE)
        return replace(
            state,
            rotations=rotation.rotvec_to_matrix(steps[:, :3]) @ state.rotations,
            translations=state.translations + steps[:, 3:],
            focal=state.focal * float(np.exp(focal_step)),
        )

    def _add_smoothness(self, matrix: np.ndarray, gradient: np.ndarray, state: _State) -> None:
        """Add the prior on second differences of the poses to the normal equations, in place."""
        num_frames = len(state.rotations)
        matrix[0] += 1e-6
        if num_frames < 3:
            return
        sideways = self.params.translation_acceleration_dm
        sigma = np.array([np.radians(self.params.rotation_acceleration_deg)] * 3 + [sideways, sideways, sideways])
        sigma[5] *= state.focal / self.width
        turns = rotation.matrix_to_rotvec(state.rotations[1:] @ state.rotations[:-1].swapaxes(1, 2))
        acceleration = np.concatenate([np.diff(turns, axis=0), np.diff(state.translations, n=2, axis=0)], axis=1)
        weight = 1 / sigma**2
        stencil = (1.0, -2.0, 1.0)
        per_frame = gradient.reshape(num_frames, POSE_SIZE)
        for first, outer in enumerate(stencil):
            per_frame[first : first + num_frames - 2] -= outer * weight * acceleration
            for second in range(first + 1):
                frames = np.arange(num_frames - 2) + second
                columns = (frames[:, None] * POSE_SIZE + np.arange(POSE_SIZE)).ravel()
                offset = (first - second) * POSE_SIZE
                np.add.at(matrix[offset], columns, np.tile(outer * stencil[second] * weight, num_frames - 2))

    def _step_shape(self, state: _State) -> _State:
        """One Gauss-Newton step for every landmark's offset, then back into the canonical face's gauge."""
        seen = np.flatnonzero(self.found)
        chosen = seen[np.linspace(0, len(seen) - 1, min(len(seen), _SHAPE_FRAMES)).astype(int)]
        points, projected = self._project(
            replace(state, rotations=state.rotations[chosen], translations=state.translations[chosen])
        )
        residuals = self.observed[chosen] - projected
        certainty = self.shape_weights[chosen]
        jacobian = point_jacobian(points, state.focal) @ state.rotations[chosen][:, None]
        # Errors are the same for many frames in a row, so that frames add up to far fewer observations.
        share = min(1.0, _INDEPENDENT_FRAMES / len(chosen)) * certainty * self._robust(residuals, certainty > 0, self.is_skin)
        weighted = jacobian * share[..., None, None]
        hessian = np.einsum("tnci,tncj->nij", weighted, jacobian) + np.eye(3) / self.params.shape_sigma_dm**2
        gradient = np.einsum("tnci,tnc->ni", weighted, residuals)
        gradient -= (state.shape - self.canonical) / self.params.shape_sigma_dm**2
        shape = state.shape + np.linalg.solve(hessian, gradient[..., None])[..., 0]
        return replace(state, shape=aligned(shape, self.canonical, self.gauge))
