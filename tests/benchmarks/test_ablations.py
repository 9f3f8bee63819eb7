"""The list of variants against the parameters, and which way a verdict points."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from gensync_core.params import load_params

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ablations(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import ablations

    return ablations


def test_every_variant_differs_from_the_full_model_in_what_it_overrides_alone(ablations):
    params = load_params(ROOT / "params.yaml")
    seen = []
    for variant in ablations.VARIANTS:
        changed = replace(params, **{name: replace(getattr(params, name), **part) for name, part in variant.overrides.items()})
        for section, part in variant.overrides.items():
            before = asdict(getattr(params, section))
            assert all(before[key] != value for key, value in part.items()), variant.name
        seen.append((str(changed), variant.lifted))
    assert len(set(seen)) == len(ablations.VARIANTS)


def _rows(name, psnr, lmd):
    """The full model at 30 dB and 5 px, and a variant whose seeds differ a little."""
    return [
        {"variant": variant, "seed": seed, "speaker": "anna", "psnr_full": values[0] + noise, "lmd_px512": values[1] + noise}
        for seed in range(3)
        for variant, values, noise in (("full model", (30.0, 5.0), 0.0), (name, (psnr, lmd), 0.01 * (seed - 1)))
    ]


@pytest.mark.parametrize(
    ("name", "psnr", "lmd", "verdict"),
    [
        ("no attention", 29.0, 5.0, "helps (PSNR)"),
        ("no attention", 31.0, 6.0, "helps (LMD), hurts (PSNR)"),
        ("no attention", 30.01, 5.0, "no difference"),
        ("smoothing on", 29.0, 4.0, "helps (LMD), hurts (PSNR)"),
    ],
)
def test_a_component_helps_where_the_model_with_it_is_better(ablations, name, psnr, lmd, verdict):
    full, other = ablations.summary(_rows(name, psnr, lmd))
    assert "verdict" not in full
    assert other["verdict"] == verdict
    assert other["psnr_full_difference"].startswith(f"{psnr - 30:+.2f} ±0.01")


def test_shuffling_gives_everybody_another_code(ablations):
    import made_up_avatar

    states = {name: made_up_avatar.speaker(20, seed) for seed, name in enumerate(("anna", "bert", "carl"))}
    trained = ablations.Trained(made_up_avatar.network(), states, None)
    shuffled = ablations._shuffled(trained).states
    assert {id(state.identity) for state in shuffled.values()} == {id(state.identity) for state in states.values()}
    assert all(shuffled[name].identity is not states[name].identity for name in states)
    assert all(shuffled[name].head is states[name].head for name in states)
