"""Head poses, camera, face shape and expressions of a speaker from landmarks: bundle adjustment over a whole clip.

Unknowns: one focal length, a pose per frame, the speaker's rigid shape (offsets on the canonical face), and what the face does
on top of it (`expression_basis`). Gauss-Newton on poses and focal length together (a block-banded system with one border
column), alternating with shape and expressions. Landmarks that move with speech, blinks and brows count little; the second
difference of the poses is held small, which removes jitter. Where points of the skin were followed by their pixels
(`skin_points`) they say most, and the landmarks say where the face is on them.

Shapes: T frames of the clip, F of them, K points of the skin, N = 478 landmarks and them, M of these; E expressions. Source:
own choice of a standard method.
"""

import logging
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import solveh_banded

from gensync_core.errors import FootageRejected
from gensync_core.face import regions
from gensync_core.face.expression_basis import ExpressionBasis, fit_expressions
from gensync_core.face.observed_points import fill_lost, mesh_observations, rigid_weights, skin_observations
from gensync_core.face.pose_equations import POSE_SIZE, aligned, banded, lift, over_chunks, point_jacobian, pose_jacobian
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
_SKIN_SIGMA, _FLOW_SIGMA_PX = 0.004, 0.15  # error expected of a point of the skin, over the inter-ocular distance, and of flow
_BESIDE_SKIN = 0.25  # weight of landmarks where there are points of the skin: their error grows with the turn of the head


@dataclass(frozen=True, slots=True)
class Track:
    """A tracked clip; lost frames are filled from their neighbours.

    Attributes:
        landmarks_px: [T, 478, 3].
        head_to_camera: [T, 4, 4] canonical to camera, decimetre.
        canonical_landmarks: [478, 3] the speaker's mean shape in the canonical frame.
        canonical_motion: [T, 478, 3] what each landmark does about its mean; it reprojects onto `landmarks_px`.
        expressions: the same without the noise of single frames, as a few directions and how far the face goes along each.
        confidence: [T] 0 to 1: what the detector gave, less where the mesh does not fit; 0 for lost frames.
        interpolated: [T] true for frames without a face of their own.
        camera: one for the clip.
        reprojection_px: median distance of the rigid landmarks from the posed mean shape.
    """

    landmarks_px: Float[np.ndarray, "T 478 3"]
    head_to_camera: Float[np.ndarray, "T 4 4"]
    canonical_landmarks: Float[np.ndarray, "478 3"]
    canonical_motion: Float[np.ndarray, "T 478 3"]
    expressions: ExpressionBasis
    confidence: Float[np.ndarray, "T"]
    interpolated: Bool[np.ndarray, "T"]
    camera: Intrinsics
    reprojection_px: float


@dataclass(frozen=True, slots=True)
class _State:
    """What is being estimated; float64. rotations [T, 3, 3], translations [T, 3] dm, focal px, shape [N, 3] dm.

    `expressions`: of the landmarks; None as long as they are not known.
    """

    rotations: np.ndarray
    translations: np.ndarray
    focal: float
    shape: np.ndarray
    expressions: ExpressionBasis | None = None


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
    adjustment = _Adjustment(landmarks_px, width, height, params or TrackParams(), skin)
    state, found = adjustment.solve(), adjustment.found
    fit = np.median(adjustment.distances(state, np.flatnonzero(rigid_weights() >= 1)), axis=1)
    typical = float(np.median(fit[found]))
    fit_confidence = np.clip(2.0 * max(typical, 1e-6) / np.maximum(fit, 1e-9), 0, 1)  # full up to twice the usual residual
    shape, motion = adjustment.lifted(state)
    _LOG.info(
        "tracked %d frames: focal %.0f px, reprojection %.2f px, %d lost", len(found), state.focal, typical, (~found).sum()
    )
    return Track(
        landmarks_px=adjustment.landmarks,
        head_to_camera=adjustment.poses(state),
        canonical_landmarks=shape.astype(np.float32),
        canonical_motion=motion,
        expressions=fit_expressions(motion, found),
        confidence=np.where(found, confidence * fit_confidence, 0).astype(np.float32),
        interpolated=~found,
        camera=adjustment.camera(state),
        reprojection_px=typical,
    )


@dataclass(frozen=True, slots=True)
class FirstTrack:
    """Where the head is as far as landmarks tell; enough to follow the skin from there. Attributes as of `Track`."""

    head_to_camera: Float[np.ndarray, "T 4 4"]
    canonical_landmarks: Float[np.ndarray, "478 3"]
    camera: Intrinsics


def first_track(
    landmarks_px: Float[np.ndarray, "T 478 3"], width: int, height: int, params: TrackParams | None = None
) -> FirstTrack:
    """As `track` without skin, and quicker.

    Raises:
        FootageRejected: too many frames show no face.
    """
    adjustment = _Adjustment(landmarks_px, width, height, params or TrackParams())
    state = adjustment.solve()
    shape = state.shape[: regions.NUM_LANDMARKS].astype(np.float32)
    return FirstTrack(adjustment.poses(state), shape, adjustment.camera(state))


def _check_enough(found: np.ndarray, params: TrackParams) -> None:
    lost_share = 1 - found.mean() if len(found) else 1.0
    if lost_share <= params.max_lost_share and found.any():
        return
    where = f"first at {np.argmin(found) / _FPS:.1f} s" if len(found) else "the clip is empty"
    raise FootageRejected(
        f"no face in {lost_share:.0%} of the frames ({where}); use footage in which the face is seen throughout"
    )


class _Adjustment:
    """The least-squares problem of one clip."""

    def __init__(
        self,
        landmarks: np.ndarray,
        width: int,
        height: int,
        params: TrackParams,
        skin: SkinPoints | None = None,
    ) -> None:
        """Landmarks [T, L, 3], NaN where no face was found.

        Raises:
            FootageRejected: too many frames show no face.
        """
        self.found = found = np.asarray(np.isfinite(landmarks).all(axis=(1, 2)))
        _check_enough(found, params)
        self.landmarks = landmarks = fill_lost(landmarks, found)
        self.width, self.height = width, height
        self.centre = np.array([width / 2, height / 2])
        self.params = params
        eyes = landmarks[:, regions.RIGHT_EYE_OUTER, :2] - landmarks[:, regions.LEFT_EYE_OUTER, :2]
        self.eye_distance_px = float(np.median(np.linalg.norm(eyes, axis=-1)[found]))
        rigid = rigid_weights()
        sets = [mesh_observations(landmarks, rigid, params.landmark_sigma * self.eye_distance_px)]
        if skin is not None and len(skin.canonical):
            sets[0] = replace(sets[0], weights=_BESIDE_SKIN * sets[0].weights)
            sets.append(skin_observations(skin, found, float(np.hypot(_SKIN_SIGMA * self.eye_distance_px, _FLOW_SIGMA_PX))))

        def joined(values: list[np.ndarray]) -> np.ndarray:
            whole = [np.broadcast_to(value, part.seen_px.shape[:2]) for value, part in zip(values, sets, strict=True)]
            return np.concatenate(whole, axis=1, dtype=np.float32)

        self.canonical = np.concatenate([part.canonical for part in sets])
        self.observed = np.concatenate([part.seen_px.swapaxes(1, 2) for part in sets], axis=2)  # [T, 2, N]
        self.weights = joined([part.weights for part in sets])
        self.shape_weights = joined([part.certainty for part in sets])
        self.gauge = np.concatenate([rigid, np.zeros(len(self.canonical) - len(rigid))])
        self.used = np.flatnonzero(self.weights.any(axis=0))
        self.is_skin = np.arange(len(self.canonical)) >= len(rigid)

    def solve(self) -> _State:
        """Alternate between poses with focal length, and shape; expressions join in at the end, once poses are good."""
        state = self._start()
        for index in range(_SHAPE_ROUNDS):
            scales = self._pose_scales(self.distances(state, self.used))
            for _ in range(_POSE_STEPS if index else 3 * _POSE_STEPS):
                state, scales = self._step_poses(state, scales)
            if index < _SHAPE_ROUNDS - 1:
                state = self._step_shape(state)
            if index == _SHAPE_ROUNDS - 2:
                state = replace(state, expressions=fit_expressions(self.lifted(state)[1], self.found))
        return state

    def poses(self, state: _State) -> Float[np.ndarray, "T 4 4"]:
        """Head to camera."""
        return pose_matrix(state.rotations, state.translations).astype(np.float32)

    def camera(self, state: _State) -> Intrinsics:
        """One for the clip."""
        return Intrinsics(state.focal, state.focal, self.width / 2, self.height / 2, self.width, self.height)

    def lifted(self, state: _State) -> tuple[Float[np.ndarray, "478 3"], Float[np.ndarray, "T 478 3"]]:
        """Mean shape of the landmarks, and what each does about it in each frame."""
        count = regions.NUM_LANDMARKS
        pixels = self.observed[..., :count] - self.centre.astype(np.float32)[:, None]
        return lift(pixels.swapaxes(1, 2), state.shape[:count], state.rotations, state.translations, state.focal)

    def distances(self, state: _State, which: np.ndarray) -> Float[np.ndarray, "T M"]:
        """How far points are seen from where they are projected, px."""

        def lengths(part: slice) -> np.ndarray:
            return _lengths(self._residuals(state, part, which)[2])

        return np.concatenate(over_chunks(lengths, len(self.observed)))

    def _start(self) -> _State:
        """Weak-perspective poses: the best affine map of the canonical face onto the landmarks, made a rotation."""
        focal = self.params.focal_prior * self.width
        weights = self.gauge / self.gauge.sum()
        mean = weights @ self.canonical
        model = self.canonical - mean
        observed_mean = self.observed @ weights
        gram = np.linalg.inv((model * weights[:, None]).T @ model)
        affine = (self.observed - observed_mean[..., None]) @ (weights[:, None] * model) @ gram
        left, singular, right = np.linalg.svd(affine, full_matrices=False)
        rows = left @ right
        rotations = np.concatenate([rows, np.cross(rows[:, 0], rows[:, 1])[:, None]], axis=1)
        depth = focal / np.maximum(singular.mean(axis=-1), 1e-6)
        offset = (observed_mean - self.centre) / focal * depth[:, None]
        translations = np.column_stack([offset, depth]) - rotations @ mean
        return _State(rotations, translations, focal, self.canonical)

    def _residuals(
        self, state: _State, frames: slice | np.ndarray, which: np.ndarray
    ) -> tuple[Float[np.ndarray, "F 3 M"], Float[np.ndarray, "F 2 M"], Float[np.ndarray, "F 2 M"]]:
        """Points before the camera, where they are projected from the principal point, and observed minus projected, px."""
        shapes = state.shape[which].T
        if state.expressions is not None:
            of_mesh = which[~self.is_skin[which]]  # they come first
            shapes = np.repeat(shapes[None], len(self.found[frames]), axis=0)
            shapes[..., : len(of_mesh)] += state.expressions.motion(frames, of_mesh).swapaxes(1, 2)
        points = state.rotations[frames] @ shapes + state.translations[frames, :, None]
        projected = state.focal * points[:, :2] / points[:, 2:]
        return points, projected, self.observed[frames][..., which] - self.centre[:, None] - projected

    def _scales(self, lengths: np.ndarray, trusted: np.ndarray, is_skin: np.ndarray) -> Float[np.ndarray, "M"]:
        """Of each point: the length [F, M] of a residual from which on it loses weight (Cauchy)."""
        scales = np.full(len(is_skin), np.inf)
        for kind in (is_skin, ~is_skin):
            known = lengths[:, kind][trusted[:, kind]]
            if len(known):
                scales[kind] = _OUTLIER * max(float(np.median(known)), 1e-3)
        return scales

    def _pose_scales(self, lengths: Float[np.ndarray, "T used"]) -> Float[np.ndarray, "used"]:
        is_skin = self.is_skin[self.used]
        trusted = (self.weights[:, self.used] > 0) & self.found[:, None] & (is_skin | (self.gauge[self.used] >= 1))
        return self._scales(lengths, trusted, is_skin)

    def _step_poses(self, state: _State, scales: Float[np.ndarray, "used"]) -> tuple[_State, Float[np.ndarray, "used"]]:
        """One Gauss-Newton step; also the scales of residuals where it began, which hardly differ from those where it ends."""
        num_frames, used = len(self.found), self.used
        lengths = np.zeros((num_frames, len(used)), dtype=np.float32)
        trust = np.where(self.found, 1.0, _LOST_TRUST)[:, None]
        blocks, gradient, border = (np.zeros((num_frames, POSE_SIZE, *end)) for end in ((POSE_SIZE,), (), ()))

        def add(part: slice) -> tuple[float, float]:
            points, projected, residuals = self._residuals(state, part, used)
            count = len(points)
            by_pose = pose_jacobian(points - state.translations[part, :, None], points, state.focal)
            by_pose = by_pose.reshape(count, POSE_SIZE, -1)
            by_focal = projected.reshape(count, -1)  # derivative by the focal length's logarithm
            lengths[part] = _lengths(residuals)
            weights = self.weights[part][:, used] * trust[part] / (1 + (lengths[part] / scales) ** 2)
            weight = np.tile(weights, 2)
            weighted = by_pose * weight[:, None]
            pixels = residuals.reshape(count, -1)
            blocks[part] = weighted @ by_pose.swapaxes(1, 2)
            gradient[part] = (weighted @ pixels[..., None])[..., 0]
            border[part] = (weighted @ by_focal[..., None])[..., 0]
            by_focal_weighted = weight * by_focal
            return float((by_focal_weighted * by_focal).sum()), float((by_focal_weighted * pixels).sum())

        corner, pull = np.sum(over_chunks(add, num_frames), axis=0)
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
        moved = replace(
            state,
            rotations=rotation.rotvec_to_matrix(steps[:, :3]) @ state.rotations,
            translations=state.translations + steps[:, 3:],
            focal=state.focal * float(np.exp(focal_step)),
        )
        return moved, self._pose_scales(lengths)

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
        points, _, residuals = self._residuals(state, chosen, np.arange(len(self.canonical)))
        certainty = self.shape_weights[chosen]
        jacobian = point_jacobian(points, state.rotations[chosen], state.focal)
        lengths = _lengths(residuals)
        robust = 1 / (1 + (lengths / self._scales(lengths, certainty > 0, self.is_skin)) ** 2)
        # Errors are the same for many frames in a row, so that frames add up to far fewer observations.
        share = min(1.0, _INDEPENDENT_FRAMES / len(chosen)) * certainty * robust
        weighted = jacobian * share[:, None, None]
        hessian = np.einsum("tcin,tcjn->nij", weighted, jacobian) + np.eye(3) / self.params.shape_sigma_dm**2
        gradient = np.einsum("tcin,tcn->ni", weighted, residuals)
        gradient -= (state.shape - self.canonical) / self.params.shape_sigma_dm**2
        shape = state.shape + np.linalg.solve(hessian, gradient[..., None])[..., 0]
        return replace(state, shape=aligned(shape, self.canonical, self.gauge))


def _lengths(residuals: Float[np.ndarray, "F 2 M"]) -> Float[np.ndarray, "F M"]:
    return np.hypot(residuals[:, 0], residuals[:, 1]).astype(np.float32)
