"""What an evaluation leaves behind: `metrics.json`, `aperture.csv`, `losses.csv` and one self-contained `report.html`.

The same input gives the same bytes: nothing here depends on the clock, on the machine or on the order of a dict that
was not chosen.
"""

import base64
import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from jinja2 import Environment, StrictUndefined, select_autoescape
from PIL import Image

from gensync_core.artefacts import atomic_path, write_json
from gensync_core.errors import ArtefactBroken
from gensync_core.evaluation.charts import Series, line_chart
from gensync_core.evaluation.figures import METRICS

_TEMPLATE = Path(__file__).with_name("report.html")
_HEADLINES = ("aperture_r_gap", "offset_frames", "psnr_head_over_truth", "lmd_iod")
_STYLES = ("true", "driven", "third", "fourth", "fifth", "sixth")


@dataclass(frozen=True, kw_only=True, slots=True)
class Apertures:
    """Mouth openings over the held-out frames; NaN where unknown, None where a control was not run."""

    first_frame: int
    fps: int
    true: Float[np.ndarray, "T"]
    driven: Float[np.ndarray, "T"]
    shuffled: Float[np.ndarray, "T"] | None = None
    silent: Float[np.ndarray, "T"] | None = None

    @property
    def time_s(self) -> Float[np.ndarray, "T"]:
        """Second of the clip of each frame."""
        return (self.first_frame + np.arange(len(self.true))) / self.fps


class Loss(NamedTuple):
    """One point of a training curve."""

    step: int
    stage: str
    name: str
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ContactSheet:
    """Frames side by side: one image, one name a row, one caption a column."""

    image: UInt8[np.ndarray, "H W 3"]
    rows: Sequence[str]
    captions: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Everything the files of a report are made from.

    Attributes:
        speaker: id.
        metrics: figures of `protocol.METRICS`, facts such as the number of frames, and digests.
        facts: label and text of the lines under the headline.
        digests: what was hashed and its sha256.
        parameters: sections of `params.yaml` as they were used.
        attention: what each Gaussian listens to, where there is an attention.
        video: MP4 with truth left, result right, and the sound.
    """

    speaker: str
    metrics: Mapping[str, Any]
    facts: Sequence[tuple[str, str]]
    digests: Sequence[tuple[str, str]]
    parameters: Mapping[str, Mapping[str, Any]]
    apertures: Apertures
    losses: Sequence[Loss]
    sheet: ContactSheet
    attention: ContactSheet | None
    video: Path


def write_report(folder: Path, evaluation: Evaluation) -> None:
    """Write the four files into `folder`, each whole or not at all."""
    write_json(folder / "metrics.json", evaluation.metrics)
    _write_apertures(folder / "aperture.csv", evaluation.apertures)
    _write_rows(
        folder / "losses.csv",
        ("step", "stage", "name", "value"),
        ((loss.step, loss.stage, loss.name, f"{loss.value:.6g}") for loss in evaluation.losses),
    )
    with atomic_path(folder / "report.html") as temporary:
        temporary.write_text(render_html(evaluation), encoding="utf-8")


def read_losses(path: Path, stage: str) -> list[Loss]:
    """Training curve of one stage: CSV with the columns step, name, value.

    Raises:
        ArtefactBroken: missing or of other columns.
    """
    try:
        with path.open(newline="") as file:
            return [Loss(int(row["step"]), stage, row["name"], float(row["value"])) for row in csv.DictReader(file)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ArtefactBroken(f"{path}: not a training log ({error!r}); run the stage that writes it again") from error


def render_html(evaluation: Evaluation) -> str:
    """The report as one page that needs nothing else."""
    environment = Environment(
        autoescape=select_autoescape(default=True), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    metrics = [(key, metric, _shown(evaluation.metrics.get(key), metric.format)) for key, metric in METRICS.items()]
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        evaluation=evaluation,
        metrics=metrics,
        headlines=[row for name in _HEADLINES for row in metrics if row[0] == name],
        video=_data_uri("video/mp4", evaluation.video.read_bytes()),
        sheet=_data_uri("image/png", _png(evaluation.sheet.image)),
        attention=evaluation.attention and _data_uri("image/png", _png(evaluation.attention.image)),
        aperture_lines=_aperture_series(evaluation.apertures),
        aperture_chart=line_chart(_aperture_series(evaluation.apertures), "second of the clip", "opening / eye distance"),
        loss_charts=_loss_charts(evaluation.losses),
    )


def _aperture_series(apertures: Apertures) -> list[Series]:
    curves = (
        ("silence", apertures.silent, "third"),
        ("shuffled", apertures.shuffled, "fourth"),
        ("driven", apertures.driven, "driven"),
        ("true", apertures.true, "true"),
    )
    return [Series(name, apertures.time_s, curve, style) for name, curve, style in curves if curve is not None]


def _loss_charts(losses: Sequence[Loss]) -> list[tuple[str, list[Series], str]]:
    """One chart for each stage: title, lines, svg."""
    charts = []
    for stage in dict.fromkeys(loss.stage for loss in losses):
        names = dict.fromkeys(loss.name for loss in losses if loss.stage == stage)
        lines = []
        for index, name in enumerate(names):
            points = np.array([(loss.step, loss.value) for loss in losses if (loss.stage, loss.name) == (stage, name)])
            style = _STYLES[index % len(_STYLES)] + (" dashed" if index >= len(_STYLES) else "")
            lines.append(Series(name, points[:, 0], points[:, 1], style))
        charts.append((stage, lines, line_chart(lines, "step", "value (log)", log_y=True)))
    return charts


def _shown(value: Any, number_format: str) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return format(value, number_format).replace("-", "−")


def _write_apertures(path: Path, apertures: Apertures) -> None:
    unknown = np.full(len(apertures.true), np.nan)
    curves = [apertures.true, apertures.driven]
    curves += [unknown if curve is None else curve for curve in (apertures.shuffled, apertures.silent)]
    rows = (
        (apertures.first_frame + index, f"{apertures.time_s[index]:.3f}", *(_cell(float(curve[index])) for curve in curves))
        for index in range(len(apertures.true))
    )
    _write_rows(path, ("frame", "time_s", "true", "driven", "shuffled", "silent"), rows)


def _cell(value: float) -> str:
    return f"{value:.6f}" if math.isfinite(value) else ""


def _write_rows(path: Path, header: Sequence[str], rows: Any) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
