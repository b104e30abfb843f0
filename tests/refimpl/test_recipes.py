"""The recipes of the five articles: what they measure, what they refuse, how they print it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from refimpl.__main__ import main
from refimpl.recipes import report
from refimpl.recipes.command import claims, recipe
from refimpl.recipes.training import Options


def test_standard_error_is_that_of_the_mean() -> None:
    # deviations -1, 0, 1: s = 1, divided by the root of three
    mean, error, runs = report.measured([4.0, 5.0, 6.0])
    assert (mean, runs) == (5.0, 3)
    assert error == pytest.approx(1 / math.sqrt(3))
    assert math.isnan(report.measured([2.0]).error)


def test_shares_are_shown_in_percent_with_their_error() -> None:
    assert report.shown(report.Measured(0.985, 0.0021, 5), ".2%") == "98.50 % ± 0.21"
    assert report.shown(report.Measured(0.004, 0.0021, 5), "+.2%") == "+0.40 % ± 0.21"
    assert report.shown(0.5, ".0%") == "50 %"
    assert report.shown(math.nan, ".2f") == "–"


def test_a_chart_in_characters_has_its_ends_and_its_marks() -> None:
    lines = [report.Series("up", [(0, 1, 0), (1, 100, 0)]), report.Series("flat", [(0, 10, 0)])]
    text = report.chart_text(report.Chart("T", "x", "y", lines, log_y=True)).splitlines()
    assert text[0] == "T  (y over x)"
    assert text[1].startswith("100 │")
    assert text[1].rstrip().endswith("●")
    # 10 lies half way between 1 and 100 on this axis: row 6 of 0 ... 11
    assert "○" in text[1 + 6]
    assert text[-1] == "● up  ○ flat"


def test_a_chart_over_names_and_one_over_a_logarithm() -> None:
    points = [(0.0, 5, 0.1), (1.0, 7, 0.1)]
    named = report.Chart("T", "x", "y", [report.Series("s", points)], names=("left", "right"))
    assert "0 left · 1 right" in report.chart_text(named).splitlines()
    decades = [(0.0, 1, 0), (0.01, 1, 0), (0.1, 1, 0), (1.0, 1, 0)]
    chart = report.Chart("T", "x", "y", [report.Series("s", decades)], log_x=True)
    drawn = next(line for line in report.chart_text(chart).splitlines() if "●" in line)
    columns = [i for i, sign in enumerate(drawn.partition("│")[2]) if sign == "●"]
    # 0 stands at the left end; the decades are equally far apart, up to half a column at each end
    assert len(columns) == 4
    assert columns[0] == 0
    assert abs((columns[3] - columns[2]) - (columns[2] - columns[1])) <= 1


@pytest.mark.parametrize("kind", ["named", "logarithmic", "plain"])
def test_a_picture_is_drawn_where_matplotlib_is_installed(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    options: dict[str, dict[str, object]] = {
        "named": {"names": ("a", "b")},
        "logarithmic": {"log_x": True},
        "plain": {},
    }
    series = [
        report.Series("s", [(0.0, 5, 0.1), (1.0, 7, 0.2)]),
        report.Series("t", [(1.0, 6, math.nan)]),
    ]
    chart = report.Chart("T", "x", "y", series, **options[kind])  # type: ignore[arg-type]
    report.plot([chart], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
def test_a2_on_the_digits_loses_at_most_a_point_at_90_percent_sparsity() -> None:
    numbers = recipe("A2").run(Options()).numbers
    assert numbers["dense"].runs == 5
    assert numbers["dense"].mean >= 0.98
    assert numbers["loss_90_against_dense"].mean <= 0.01
    assert numbers["loss_90_against_same_epochs"].mean <= 0.01
    assert numbers["tuned_90"].mean > numbers["pruned_90"].mean + 0.02


def test_a2_flattened_sizes() -> None:
    numbers = claims("A2")["flatten"].run(Options()).numbers  # type: ignore[misc]
    # ((size - 4) // 2)² positions of 64 channels
    assert numbers == {"inputs_8": 2 * 2 * 64, "inputs_28": 12 * 12 * 64, "inputs_32": 14 * 14 * 64}


def test_a2_a_higher_threshold_is_no_cure() -> None:
    numbers = claims("A2")["raise"].run(Options(epochs=4)).numbers  # type: ignore[misc]
    assert numbers["first"] > numbers["middle"] > numbers["last"]


def test_a2_an_integer_clips_nothing() -> None:
    numbers = claims("A2")["integer"].run(Options()).numbers  # type: ignore[misc]
    assert numbers["share_at_1"] < 1e-4 < 0.01 < numbers["share_at_0.01"]


def test_a2_a_clip_by_value_turns_the_gradient_and_one_by_norm_does_not() -> None:
    numbers = claims("A2")["direction"].run(Options()).numbers  # type: ignore[misc]
    assert numbers["value_degrees"] > 10
    assert numbers["norm_degrees"] < 0.1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["A9"], "no recipe 'A9'; there are: A1, A2, A3, A4, A5"),
        (["A2", "--claim", "magic"], "A2 has no claim 'magic'; there are: flatten, "),
        (["A2", "--data", "mnist"], "--data must be digits or IMAGES,LABELS, got 'mnist'"),
        (["A2", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["A2", "--json", "nowhere/x.json"], "cannot write nowhere/x.json"),
        (["A2", "--claim", "if-tensor"], "if-tensor is shown by a run of torch"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipe", *arguments]) == 2
    complaint = capsys.readouterr().err
    assert line in complaint
    assert complaint.count("\n") == 1


def test_a_claim_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "a2.json"
    assert main(["recipe", "A2", "--claim", "flatten", "--json", str(written)]) == 0
    printed = capsys.readouterr().out
    assert "In fact: The size printed fits no 28×28 input." in printed
    assert "28×28" in printed
    assert "9216" in printed
    assert json.loads(written.read_text())["numbers"]["inputs_28"] == 9216
    assert list(tmp_path.iterdir()) == [written]


def test_a5_only_the_proximal_step_makes_zeros() -> None:
    numbers = claims("A5")["l2"].run(Options(epochs=100)).numbers  # type: ignore[misc]
    assert numbers["L1, proximal"] > 100
    assert [numbers[name] for name in ("none", "L2, gradient", "L1, sub-gradient")] == [0, 0, 0]


def test_a5_outputs_against_targets_that_broadcast() -> None:
    numbers = claims("A5")["broadcast"].run(Options()).numbers  # type: ignore[misc]
    # the mean over all pairs of (t_i - t_j)² is twice the variance, of (mean - t_j)² once
    assert numbers["perfect"] == pytest.approx(2 * numbers["constant"], rel=1e-6)
    assert numbers["refused"] == 1
    assert numbers["spread"] < 0.05


def test_a5_c_over_two_is_the_limit() -> None:
    assert claims("A5")["range"].run(Options()).numbers == {"third": 0.5}  # type: ignore[misc]


@pytest.mark.long
def test_a5_sparsity_does_not_cost_accuracy_here() -> None:
    numbers = recipe("A5").run(Options(seeds=1)).numbers
    assert numbers["L1, proximal"]["exact"].mean > 0.5
    assert numbers["L1, sub-gradient"]["exact"].mean == 0
    assert numbers["L1, sub-gradient"]["near"].mean > 0.5
    assert numbers["adam, λ 0.03"]["error"].mean < numbers["adam, λ 0"]["error"].mean


def test_a3_above_a_million_parameters_nothing_is_clipped() -> None:
    numbers = claims("A3")["million"].run(Options()).numbers  # type: ignore[misc]
    assert numbers["below"] == pytest.approx(1, rel=1e-5)
    assert numbers["above"] == pytest.approx(0.037 * math.sqrt(1_000_001), rel=1e-5)
    assert numbers["clipped"] == pytest.approx(1, rel=1e-5)


def test_a3_softmax_twice_has_a_floor_and_log_softmax_twice_has_no_effect() -> None:
    numbers = claims("A3")["twice"].run(Options(epochs=2)).numbers  # type: ignore[misc]
    # e / (e + 9) is the most that softmax of probabilities gives a class
    assert numbers["floor"] == pytest.approx(-math.log(math.e / (math.e + 9)))
    assert numbers["softmax"]["loss"] > numbers["floor"] > numbers["logits"]["loss"]
    assert numbers["softmax"]["accuracy"] < numbers["logits"]["accuracy"]
    assert numbers["log-softmax"]["loss"] == pytest.approx(numbers["logits"]["loss"], rel=1e-3)


def test_a3_unequal_tensors_do_not_stack_and_clips_enlarge_nothing() -> None:
    stack = claims("A3")["stack"].run(Options()).numbers  # type: ignore[misc]
    assert stack["refused"] == 1
    assert stack["norm"] == pytest.approx(stack["by_hand"], rel=1e-6)
    vanishing = claims("A3")["vanishing"].run(Options()).numbers  # type: ignore[misc]
    assert vanishing["highest"] <= 1
    assert vanishing["left_after_32"] < 1e-5


@pytest.mark.long
def test_a3_the_recurrent_network_diverges_without_the_clip_and_converges_with_it() -> None:
    _, _, numbers = recipe("A3").demonstrate(Options(), [0, 1, 2])
    free, clipped = numbers["recurrent, no clip"], numbers["recurrent, clip 0.3"]
    # ln 10 = 2.303 is the loss of guessing: without the clip it gets far worse than that
    assert numbers["recurrent, no clip, best loss"] > 2 * 2.303
    assert numbers["recurrent, clip 0.3, worst loss"] < 1.0
    assert free["accuracy"].mean < 0.2 < 0.7 < clipped["accuracy"].mean


def test_a4_gradients_that_are_zeroed_prune_nothing() -> None:
    numbers = claims("A4")["gradients"].run(Options(epochs=3)).numbers  # type: ignore[misc]
    assert numbers["printed"] == 0 < numbers["pruned"]
    assert numbers["unchanged"] == 1


def test_a4_the_sum_of_softmax_outputs_has_no_gradient() -> None:
    numbers = claims("A4")["output"].run(Options(epochs=1)).numbers  # type: ignore[misc]
    assert numbers["output"] < 1e-6 < 0.01 < numbers["loss"]


def test_a4_pruned_weights_grow_back_without_a_mask() -> None:
    numbers = claims("A4")["refit"].run(Options(epochs=3)).numbers  # type: ignore[misc]
    assert numbers["outgoing weights, no mask"] < 0.9
    assert numbers["both and the bias, mask"] == 1


@pytest.mark.long
def test_a4_pruning_and_distillation_end_at_one_size_and_both_learn() -> None:
    report = claims("A4")["distillation"].run(Options(seeds=2, epochs=8))  # type: ignore[misc]
    right = {name: found.mean for name, found in report.numbers.items()}
    assert len(right) == 4
    assert right["the large network"] > 0.8
    # The pupil has learnt from its teacher: it saw no label.
    assert right["small, from the large one"] > 0.8
    assert len(set(right.values())) == 4


def test_a4_prunes_neurons_and_wins_back_what_was_lost() -> None:
    numbers = recipe("A4").run(Options(seeds=2)).numbers
    assert numbers["share"].mean > 0.05
    assert numbers["parameters"].mean < 6_000
    assert numbers["tuned"].mean > numbers["dense"].mean - 0.01


def test_a1_a_small_gradient_is_not_an_unimportant_weight() -> None:
    numbers = claims("A1")["stationary"].run(Options()).numbers  # type: ignore[misc]
    assert numbers["by_gradient"] < numbers["by_magnitude"] - 0.1


def test_a1_no_gradient_is_clipped_and_labels_have_none() -> None:
    clipping = claims("A1")["clipping"].run(Options()).numbers  # type: ignore[misc]
    assert clipping["before"] == clipping["after"]
    assert clipping["changed"] > 0
    assert claims("A1")["difference"].run(Options()).numbers == {"same_shape": 0}  # type: ignore[misc]
    labels = claims("A1")["labels"].run(Options()).numbers  # type: ignore[misc]
    assert labels == {"slope": 0, "selected": 1}


@pytest.mark.long
def test_a1_pruning_by_gradients_costs_more_than_pruning_by_size() -> None:
    numbers = recipe("A1").run(Options(seeds=1)).numbers
    strong = numbers["element, rate 1, threshold 0.001"]
    assert strong["accuracy"].mean < numbers["element, rate 1, threshold 0"]["accuracy"].mean
