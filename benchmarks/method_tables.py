"""Tables of how the method fares: strategies, subspaces, thresholds, drift; from the JSONs."""

from pathlib import Path
from statistics import median

from benchmarks.reports import load


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def strategies_table(results: Path) -> str:
    """Rows of `strategies.py`: the ways to fit beside scikit-learn's."""
    report = load(results, "strategies.json")
    head = [
        "features", "strategy", "takes", "times faster than scikit-learn", "target",
        "lacks of the best variance", "scikit-learn lacks",
    ]  # fmt: skip
    rows = []
    for row in report["strategies"]:
        ratio, target = row["times_faster"], row["target"]
        met = "" if target is None else ", met" if ratio["median"] >= target else ", **missed**"
        rows.append(
            [
                f"{row['features']}, {row['rows']} x {row['columns']}, k = {row['k']}",
                row["strategy"],
                f"{median(row['seconds']['ours']):.2f} s",
                f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})",
                f"{target:g}{met}" if target else "-",
                f"{max(row['lacking'], 0):.1e} of {row['best_variance']:.3f}",
                f"{max(row['lacking_of_sklearn'], 0):.1e}",
            ]
        )
    trained = [
        f"* tied autoencoder{', warm start from PCA' if row['warm'] else ', from random weights'} "
        f"({row['features']}, k = {row['k']}): {row['seconds']:.0f} s; lacks {row['lacking']:.1e} "
        f"of {row['best_variance']:.3f}; principal angles with the PCA: "
        f"{row['principal_angles_degrees']['median']:.2g} degrees in the median, "
        f"{row['principal_angles_degrees']['largest']:.2g} at most"
        for row in report["autoencoders"]
    ]
    return _markdown(head, rows) + "\n\n" + "\n".join(trained)


def thresholds_table(results: Path) -> str:
    """Summaries of `thresholds.py`: false rejects of good photos that no fit has seen."""
    report = load(results, "thresholds.json")
    head = [
        "data", "`--groups`", "asked for", "false rejects, mean", "least-largest",
        "splits within the interval", "above it", "below it",
    ]  # fmt: skip
    rows = []
    for result in report["results"]:
        for line in result["summary"]:
            below = line["splits"] - line["within"] - line["above"]
            rows.append(
                [
                    f"`{result['data']}`, {result['photos']} photos of {result['scenes']} parts",
                    result["groups"],
                    f"{line['fpr']:.0%}",
                    f"{line['mean']:.1%}",
                    f"{line['smallest']:.1%}-{line['largest']:.1%}",
                    f"{line['within']} of {line['splits']}",
                    str(line["above"]),
                    str(below),
                ]
            )
    told = (
        f"The interval is the binomial one ({report['confidence']:.0%}) of as many draws as there "
        "are parts in the test share of a split."
    )
    return _markdown(head, rows) + "\n\n" + told


def drift_table(results: Path) -> str:
    """Rows of `drift.py`: how many scores pass before the alarm."""
    report = load(results, "drift.json")
    head = [
        "data", "drift", "scores move by", "false rejects", "streams with alarm",
        "scores until the alarm, median (90th percentile)", "false rejects until then",
    ]  # fmt: skip
    rows, without = [], []
    for result in report["results"]:
        quiet = result["without_drift"]
        without.append(f"`{result['data']}` {quiet['false_alarms']} in {quiet['scores']:,} scores")
        for row in result["drifts"]:
            found = row["delay_median"] is not None
            rows.append(
                [
                    f"`{result['data']}`",
                    row["drift"],
                    f"{row['median_score_ratio'] - 1:+.0%}",
                    f"{row['false_reject_rate']:.1%}",
                    f"{row['found']} of {row['streams']}",
                    f"{row['delay_median']:.0f} ({row['delay_p90']:.0f})" if found else "-",
                    f"{row['false_rejects_before_alarm']:.1f}" if found else "-",
                ]
            )
    return f"False alarms without drift: {'; '.join(without)}.\n\n" + _markdown(head, rows)


def subspaces_table(results: Path) -> str:
    """Rows of `subspaces.py`: image AUROC with each subspace."""
    rows = load(results, "subspaces.json")["results"]
    data = list(dict.fromkeys(row["data"] for row in rows))
    found = {(_subspace(row), row["data"]): f"{row['image_auroc']:.4f}" for row in rows}
    kinds = list(dict.fromkeys(_subspace(row) for row in rows))
    cells = [[kind, *(found.get((kind, name), "-") for name in data)] for kind in kinds]
    return _markdown(["subspace", *(f"`{name}`" for name in data)], cells)


def _subspace(row: dict) -> str:
    return f"`{row['subspace']}`, variance {row['variance']:.2f}"
