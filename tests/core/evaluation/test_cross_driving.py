from dataclasses import replace

import numpy as np
import pytest
import torch
from made_up_avatar import FEATURES, avatar
from made_up_training import trainee_of

from gensync_core.evaluation.controls import shuffled_features
from gensync_core.evaluation.cross_driving import following_in_pictures, following_of_lips
from gensync_core.evaluation.lip_motion import lip_openings
from gensync_core.evaluation.lip_sync import aperture_correlation
from gensync_core.face.landmarks import Face
from gensync_core.face.regions import LEFT_EYE_OUTER, LOWER_INNER_LIP, RIGHT_EYE_OUTER, UPPER_INNER_LIP
from gensync_core.geometry.motion import Motion
from gensync_core.progress import Progress
from gensync_core.rendering.synthesis import Avatar, RenderedFrame

NUM_FRAMES, SHIFT = 120, 20
HEARD = np.arange(30, NUM_FRAMES)


def voice_of(aperture=None, features=None):
    """A clip of another speaker, of which only sound and mouth opening are looked at."""
    walk = np.random.default_rng(1).normal(size=(NUM_FRAMES + 4, FEATURES)).cumsum(0)
    smooth = (walk[4:] - walk[:-4]).astype(np.float32) / 4 + 0.3
    aperture = np.random.default_rng(2).random(NUM_FRAMES).astype(np.float32) if aperture is None else aperture
    data = trainee_of(1).data
    per_frame = ("head_to_camera", "body_to_camera", "upper_face", "landmarks_px", "canonical_motion")
    still = {name: getattr(data, name)[:1].expand(NUM_FRAMES, *getattr(data, name).shape[1:]) for name in per_frame}
    features = torch.from_numpy(smooth) if features is None else features
    silence = torch.zeros(8, FEATURES)
    return replace(data, features=features, silence=silence, aperture=aperture.astype(np.float32), **still)


def still_openings(made, landmarks, features):
    state = made.state
    poses, bodies = (pose.expand(len(HEARD), 4, 4) for pose in (state.mean_pose, torch.eye(4)))
    motion = Motion(poses, bodies, state.take.upper_face.mean(0).expand(len(HEARD), 6))
    return lip_openings(made, landmarks, features, HEARD, motion)


def test_a_mouth_that_does_what_the_voice_did_follows_it():
    made, landmarks = avatar(20), trainee_of(0).data.canonical_landmarks
    features = voice_of().features
    aperture = np.full(NUM_FRAMES, np.nan)
    aperture[HEARD] = 3 * still_openings(made, landmarks, features) + 0.1
    found = following_of_lips(made, landmarks, voice_of(aperture), HEARD, SHIFT)
    assert found.r == pytest.approx(1, abs=1e-5)
    shuffled = torch.from_numpy(shuffled_features(features.numpy(), int(HEARD[0]), len(HEARD), SHIFT))
    control = aperture_correlation(aperture[HEARD], still_openings(made, landmarks, shuffled).astype(np.float64))
    assert found.r_shuffled == pytest.approx(control, abs=1e-5)
    assert found.r_shuffled < 0.9
    assert found.gap == found.r - found.r_shuffled


def test_the_opposite_of_the_voice_is_told_from_it():
    made, landmarks = avatar(20), trainee_of(0).data.canonical_landmarks
    aperture = np.zeros(NUM_FRAMES)
    aperture[HEARD] = -still_openings(made, landmarks, voice_of().features)
    assert following_of_lips(made, landmarks, voice_of(aperture), HEARD, SHIFT).r == pytest.approx(-1, abs=1e-5)


def test_only_the_sound_moves_the_mouth():
    made, landmarks = avatar(20), trainee_of(0).data.canonical_landmarks
    monotone = torch.full((NUM_FRAMES, FEATURES), 0.3)
    found = following_of_lips(made, landmarks, voice_of(features=monotone), HEARD, SHIFT)
    assert found == (0, 0)  # neither poses nor brows of the take are played


class PaintingAvatar(Avatar):
    """Paints the loudness that it hears, and remembers how it was asked to hold its head."""

    def render(self, features, motion, frames):
        self.held = motion
        for frame in frames:
            image = np.full((8, 8, 3), round(float(features[frame, 0]) * 200), dtype=np.uint8)
            yield RenderedFrame(image, image / np.float32(255), np.ones((8, 8), dtype=np.float32))


class BrightnessMesh:
    """Reads brightness as mouth opening."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def detect(self, frame):
        landmarks = np.zeros((478, 3), dtype=np.float32)
        landmarks[RIGHT_EYE_OUTER, 0], landmarks[LEFT_EYE_OUTER, 0] = 0, 200
        landmarks[UPPER_INNER_LIP, 1], landmarks[LOWER_INNER_LIP, 1] = 0, frame.mean()
        return Face(landmarks, 1.0)


def test_in_pictures_the_opening_is_read_from_rendered_frames_of_a_still_head(monkeypatch):
    monkeypatch.setattr("gensync_core.face.landmarks.FaceMesh", BrightnessMesh)
    made = avatar(20)
    painting = PaintingAvatar(made.network, made.state, made.backend)
    loudness = np.random.default_rng(3).random(NUM_FRAMES)
    features = torch.zeros(NUM_FRAMES, FEATURES)
    features[:, 0] = torch.from_numpy(loudness)
    bar = Progress("frames", 2 * len(HEARD))
    found = following_in_pictures(painting, voice_of(loudness, features), HEARD, SHIFT, bar)
    assert found.r > 0.999
    assert abs(found.r_shuffled) < 0.5
    assert bar.done == 2 * len(HEARD)
    still = Motion(made.state.mean_pose, torch.eye(4), made.state.take.upper_face.mean(0))
    for held, part in zip(painting.held, still, strict=True):
        assert torch.equal(held, part.expand(len(HEARD), *part.shape))
