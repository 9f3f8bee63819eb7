"""What every figure of `metrics.json` is; the report prints the sentence beside the number.

Seconds and memory are not among them: they differ between two runs of the same seed, and a versioned file must not.
"""

from typing import NamedTuple


class Metric(NamedTuple):
    """How one figure is shown: `title`, `unit`, number `format`, and `meaning` in one sentence."""

    title: str
    unit: str
    format: str
    meaning: str


METRICS: dict[str, Metric] = {
    "psnr_full": Metric(
        "PSNR, full frame",
        "dB",
        ".2f",
        "Whole rendered frame against the true one, torso and background included; higher is closer.",
    ),
    "psnr_head_over_truth": Metric(
        "PSNR, head over true torso",
        "dB",
        ".2f",
        "Whole frame with only the head rendered, as in papers; the true surroundings raise it.",
    ),
    "psnr_head": Metric(
        "PSNR, head region",
        "dB",
        ".2f",
        "The same composite, but only the pixels of the true head and a narrow rim count; the strictest.",
    ),
    "psnr_mouth": Metric("PSNR, mouth", "dB", ".2f", "Square box around the true mouth, 2.2 mouth widths wide."),
    "ssim_full": Metric("SSIM, full frame", "", ".4f", "Structural similarity of the whole frame; 1 is equal."),
    "ssim_head": Metric("SSIM, head region", "", ".4f", "Structural similarity over the head region."),
    "lpips_full": Metric(
        "LPIPS, full frame",
        "",
        ".4f",
        "Distance of what AlexNet makes of both frames; 0 is equal. Measured with `evaluate.lpips: true` only.",
    ),
    "lpips_mouth": Metric(
        "LPIPS, mouth", "", ".4f", "The same in the mouth's box, enlarged to 64 px where it is smaller; 0 is equal."
    ),
    "neck_colour_error": Metric(
        "Colour error at the neck",
        "levels of 255",
        ".2f",
        "Mean absolute error beside the line where the head lies over the body: jaw against neck, hair against shoulders.",
    ),
    "neck_seam": Metric(
        "Seam at the neck",
        "levels of 255",
        ".2f",
        "How much steeper colours change across that line than in the truth; 0 is no seam.",
    ),
    "lmd_px512": Metric(
        "LMD",
        "px at 512",
        ".3f",
        "Mean distance of the mouth's landmarks after taking out where the mouth is; lower is closer.",
    ),
    "lmd_iod": Metric(
        "LMD over eye distance", "", ".4f", "The same distance in units of the distance between the outer eye corners."
    ),
    "aperture_r": Metric(
        "Aperture correlation",
        "r",
        ".3f",
        "Pearson r of true and driven mouth opening over the held-out frames; 1 follows exactly.",
    ),
    "aperture_r_shuffled": Metric(
        "… with shuffled sound", "r", ".3f", "Control: the sound of other moments of the same segment; should be near 0."
    ),
    "aperture_r_gap": Metric("… real minus shuffled", "r", ".3f", "The lip-sync figure: what the sound itself contributes."),
    "aperture_r_chance": Metric(
        "… by chance",
        "r",
        ".3f",
        "Size of r when the two curves are shifted against each other: the noise of so short a segment.",
    ),
    "aperture_std_silent_over_speech": Metric(
        "Movement in silence",
        "ratio",
        ".3f",
        "Control: movement of the mouth when driven with silence, over its movement with speech.",
    ),
    "lip_std_silent_over_speech": Metric(
        "… of the lips themselves",
        "ratio",
        ".3f",
        "The same for the lips in the head's own frame, before rendering: a turning head changes an opening that is measured "
        "in pictures.",
    ),
    "offset_frames": Metric(
        "Offset",
        "frames",
        "d",
        "Shift between driven and true opening with the best correlation; positive: the driven mouth is late.",
    ),
    "offset_subframe": Metric(
        "Offset, refined", "frames", ".2f", "The same by a parabola through the best shift and its neighbours."
    ),
    "offset_r": Metric("Correlation at the offset", "r", ".3f", "Aperture correlation once the offset is taken out."),
    "jitter_ratio": Metric(
        "Jitter",
        "ratio",
        ".3f",
        "Mean second difference of the landmarks over the truth's own; 1 trembles as the footage does.",
    ),
    "faces_found": Metric("Faces found", "share", ".3f", "Share of rendered frames in which the face detector finds a face."),
}
