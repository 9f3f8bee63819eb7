"""A training goes through with each of the model's components switched off, and trains what is left."""

from dataclasses import replace

import made_up_training
import pytest
import torch
from made_up_training import fit_of


@pytest.mark.parametrize(
    "switches", [{"triplane": "dense"}, {"attention": False}, {"torso_field": False}, {"fusion": "none"}], ids=str
)
def test_training_without_a_component_trains_the_rest(tmp_path, monkeypatch, switches):
    monkeypatch.setattr(made_up_training, "MODEL", replace(made_up_training.MODEL, **switches))
    fit = fit_of()
    before = {name: tensor.detach().clone() for name, tensor in fit.network.named_parameters()}
    fit.run(tmp_path / "job", "test")
    idle = {name for name, tensor in fit.network.named_parameters() if torch.equal(tensor, before[name])}
    switched_off = {
        "torso_field": ("torso_field.",),
        "fusion": ("disentanglement.identity_", "disentanglement.audio_factor", "disentanglement.core"),
    }
    expected = tuple(start for name in switches for start in switched_off.get(name, ()))
    assert {name for name in idle if not name.startswith(expected or ("-",))} == set()
    assert all(any(name.startswith(start) for name in idle) for start in expected)
    assert all(torch.isfinite(tensor).all() for tensor in fit.network.parameters())
