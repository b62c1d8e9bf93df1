"""The graphs of one bundle hold one network: references that disagree on equal inputs were forged."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_runtime import contract
from ptycho_runtime.export.golden_agreement import golden_contradiction

N = 8


def golden() -> dict[str, np.ndarray]:
    """Return references of all graphs of one imaginary network."""
    random = np.random.default_rng(3)
    amplitude, phase = random.uniform(0.5, 1.5, (2, 1, N, N)), random.uniform(-3, 3, (2, 1, N, N))
    field = amplitude * np.exp(1j * phase)
    middle = field[..., contract.centre(N), contract.centre(N)]
    inputs = {
        contract.DIFFRACTION: random.uniform(0, 9, (2, 1, N, N)),
        contract.INPUT_SCALE: np.full((2, 1, 1, 1), 0.1),
    }
    arrays = {f"{graph}.input.{name}": value for graph in contract.ALL_GRAPHS for name, value in inputs.items()}
    for graph, values in ((contract.DIFFRACTION_TO_OBJ, field), (contract.CENTRE, middle)):
        arrays |= {
            f"{graph}.reference.{contract.OBJECT_REAL}": values.real,
            f"{graph}.reference.{contract.OBJECT_IMAG}": values.imag,
        }
    return arrays | {
        f"autoencoder.reference.{contract.AMPLITUDE}": amplitude,
        f"autoencoder.reference.{contract.PHASE}": phase,
    }


def test_one_network_agrees_with_itself() -> None:
    assert golden_contradiction(golden(), contract.ALL_GRAPHS, N) == ""


def test_a_reference_of_real_and_imaginary_parts_agrees_too() -> None:
    arrays = golden()
    amplitude, phase = (arrays.pop(f"autoencoder.reference.{name}") for name in (contract.AMPLITUDE, contract.PHASE))
    arrays[f"autoencoder.reference.{contract.OBJECT_REAL}"] = amplitude * np.cos(phase)
    arrays[f"autoencoder.reference.{contract.OBJECT_IMAG}"] = amplitude * np.sin(phase)
    assert golden_contradiction(arrays, contract.ALL_GRAPHS, N) == ""


@pytest.mark.parametrize("graphs", [contract.ALL_GRAPHS, contract.GRAPHS])
def test_forged_object_graphs_are_met_by_the_autoencoder(graphs: tuple[str, ...]) -> None:
    arrays = {
        name: value * 1.5 if name.startswith(contract.DIFFRACTION_TO_OBJ) and ".reference." in name else value
        for name, value in golden().items()
    }
    assert "autoencoder is 3.3e-01 away from that of diffraction_to_obj" in golden_contradiction(arrays, graphs, N)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("autoencoder.input.diffraction", np.zeros((2, 1, N, N)), "have other inputs diffraction"),
        ("autoencoder.reference.amplitude", np.zeros((2, 1, 3, 3)), "autoencoder has no object of the shape"),
        ("autoencoder.reference.phase", np.full((2, 1, N, N), np.nan), "autoencoder is nan away"),
        ("diffraction_to_obj.reference.object_real", np.array(["a"]), "diffraction_to_obj has no object"),
    ],
)
def test_arrays_that_cannot_be_compared_are_no_agreement(name: str, value: np.ndarray, message: str) -> None:
    assert message in golden_contradiction(golden() | {name: value}, contract.ALL_GRAPHS, N)


def test_an_object_of_another_number_of_groups_is_no_agreement() -> None:
    more = {f"autoencoder.reference.{name}": np.zeros((3, 1, N, N)) for name in (contract.AMPLITUDE, contract.PHASE)}
    assert "autoencoder has no object of the shape" in golden_contradiction(golden() | more, contract.ALL_GRAPHS, N)
