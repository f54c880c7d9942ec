"""The quality tables of README.md and benchmarks/README.md, as Markdown."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.quality.summary import spread
from benchmarks.reports import load, verdict

Row = dict[str, Any]
TITLES = {
    "image_auroc": "image AUROC",
    "image_ap": "AP",
    "image_f1_max": "F1-max",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO (30%)",
    "false_reject_rate": "false rejects",
    "detection_rate": "detected",
}
TARGETS = {"magnetic_tile": 0.992, "magnetic_tile_grouped": 0.93, "elpv_mono": 0.97}
"""Image AUROC that this project set out for."""
RATES = ("false_reject_rate", "detection_rate")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def figure(metric: str, value: float | None) -> str:
    """One figure: rates in percent, areas to 4 (image) or 3 digits."""
    if value is None:
        return "-"
    if metric in RATES:
        return f"{value:.1%}"
    return f"{value:.4f}" if metric.startswith("image") else f"{value:.3f}"


def over_draws(metric: str, found: Row | None) -> str:
    """Mean and standard deviation, and the range."""
    if found is None:
        return "-"
    if found["n"] == 1:
        return figure(metric, found["mean"])
    scale, digits = (100, 1) if metric in RATES else (1, 4 if metric == "image_auroc" else 3)
    centre, std, low, high = (
        f"{scale * found[key]:.{digits}f}" for key in ("mean", "std", "min", "max")
    )
    unit = "%" if metric in RATES else ""
    return f"{centre} ± {std}{unit} ({low}-{high})"


def described(report: Row) -> dict[str, str]:
    """Each data set, with how its split is drawn."""
    titles = {}
    for one in report["data"]:
        how = "drawn at random"
        if one["groups"] is not None:
            how = f"{one['groups']} groups drawn whole"
        titles[one["data"]] = f"`{one['data']}`, {how}"
    return titles


def draws(number: int) -> str:
    """How many draws of each split there are."""
    return "1 draw" if number == 1 else f"{number} draws"


def draws_by_sweep(rows: Sequence[Row]) -> str:
    """The same for sweeps, which may have been run at different times with different numbers."""
    sweeps: dict[int, list[str]] = {}
    for sweep in dict.fromkeys(row["sweep"] for row in rows):
        number = len({row["seed"] for row in chosen(rows, sweep=sweep)})
        sweeps.setdefault(number, []).append(sweep)
    if len(sweeps) == 1:
        return f"{draws(*sweeps)} of the split"
    told = (f"{draws(number)} ({', '.join(names)})" for number, names in sweeps.items())
    return f"as many draws of the split: {', '.join(told)}"


def chosen(rows: Sequence[Row], **wanted: object) -> list[Row]:
    """Rows with these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def headline_table(results: Path) -> str:
    """Short: the given split, and the mean over all draws; then what leaks."""
    report = load(results, "quality.json")
    metrics = ("pixel_auroc", "aupro", "false_reject_rate", "detection_rate")
    rows = []
    for row in chosen(report["summary"], engine="openvino", variant="fp32"):
        [given] = chosen(
            report["results"], data=row["data"], engine="openvino", variant="fp32", seed=0
        )
        area = row["image_auroc"]
        rows.append(
            [
                described(report)[row["data"]],
                figure("image_auroc", given["image_auroc"]),
                f"{area['mean']:.4f} ({area['min']:.4f}-{area['max']:.4f})",
                against_target(row["data"], given["image_auroc"], area["mean"]),
                *(figure(m, row[m]["mean"] if row[m] else None) for m in metrics),
            ]
        )
    over = f"mean of {draws(report['seeds'])} (least-largest)"
    head = ["data", "image AUROC, given split", over, "target", *(TITLES[m] for m in metrics)]
    return "\n\n".join([markdown(head, rows), *leak_text(report)])


def against_target(data: str, given: float, mean_area: float) -> str:
    """Whether the image AUROC of the given split and the mean of all reach what was set out for."""
    target = TARGETS.get(data)
    if target is None:
        return "-"
    given_met, mean_met = given >= target, mean_area >= target
    if given_met == mean_met:
        return f"{target:g}: {verdict(given_met)}"
    return f"{target:g}: given split {verdict(given_met)}, mean {verdict(mean_met)}"


def leak_text(report: Row) -> list[str]:
    """By how much a split that separates near-copies is easier than an honest one."""
    paragraphs = []
    areas = {
        row["data"]: row["image_auroc"]["mean"]
        for row in chosen(report["summary"], engine="openvino", variant="fp32")
    }
    for leak in report["leaks"]:
        share = leak["seen_in_training"] / leak["test_good"]
        easy, honest = areas[leak["data"]], areas[leak["honest"]]
        paragraphs.append(
            f"**The split of `{leak['data']}` leaks.** {leak['seen_in_training']} of its "
            f"{leak['test_good']} good test photos ({share:.0%}) show a part of which another "
            f"photo is in training. With every part on one side (`{leak['honest']}`, the same "
            f"photos) the same fit falls from {easy:.4f} to {honest:.4f}, by "
            f"{easy - honest:.4f} (mean of {draws(report['seeds'])}). The second is the honest "
            "figure; published figures by such a split flatter in the same way."
        )
    return paragraphs


def leaks_text(results: Path) -> str:
    """`leak_text` by itself."""
    return "\n\n".join(leak_text(load(results, "quality.json")))


def labels_table(results: Path) -> str:
    """What test photos with near-copies in training do to the figures."""
    report = load(results, "quality-labels.json")
    rows = []
    for data in dict.fromkeys(row["data"] for row in report["results"]):
        measured = chosen(report["results"], data=data)
        rows.append([f"`{data}`, given split", *_labels_cells(chosen(measured, seed=0))])
        if len(measured) > 1:
            rows.append([f"`{data}`, mean of {draws(len(measured))}", *_labels_cells(measured)])
    head = [
        "data",
        "defective, near a good training photo",
        "image AUROC, all photos",
        "without those",
        "of those alone",
        "good, near a good training photo",
        "image AUROC without either",
    ]
    note = (
        f"Near: a cosine above {report['cut']:g} of the centred features of the first layer. Image "
        "AUROC of some defective photos is that against the good test photos. The figures of all "
        "other tables are those of all photos: nothing was left out of them."
    )
    return f"{markdown(head, rows)}\n\n{note}"


def _labels_cells(rows: Sequence[Row]) -> list[str]:
    def of(key: str) -> float | None:
        known = [row[key] for row in rows if row[key] is not None]
        return mean(known) if known else None

    def share(key: str, total: str) -> str:
        return f"{of(key):.3g} of {of(total):.0f}"

    areas = ("image_auroc", "image_auroc_without", "image_auroc_of_copies")
    return [
        share("copies", "defective"),
        *(figure("image_auroc", of(area)) for area in areas),
        share("good_copies", "good"),
        figure("image_auroc", of("image_auroc_without_any")),
    ]


def rows_table(results: Path) -> str:
    """Every metric over the draws, both engines."""
    report = load(results, "quality.json")
    rows = [
        [
            described(report)[row["data"]],
            *(over_draws(metric, row[metric]) for metric in TITLES),
        ]
        for row in chosen(report["summary"], engine="openvino", variant="fp32")
    ]
    engines = (
        f"Over {draws(report['seeds'])} of each split: mean ± standard deviation (least-largest). "
        "These are OpenVINO's figures; ONNX Runtime's differ by at most "
        f"{engines_differ(report['results']):.0e}."
    )
    return f"{markdown(['data', *TITLES.values()], rows)}\n\n{engines}"


def engines_differ(results: Sequence[Row]) -> float:
    """Largest difference between the engines in any figure of any draw."""
    found: dict[object, list[float]] = {}
    for row in chosen(results, variant="fp32"):
        for metric in TITLES:
            if row[metric] is not None:
                found.setdefault((row["data"], row["seed"], metric), []).append(row[metric])
    return max(max(values) - min(values) for values in found.values())


def kinds_table(results: Path) -> str:
    """Each kind of defect against all good photos."""
    report = load(results, "quality.json")
    metrics = ("image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "aupro")
    rows = [
        [
            f"`{row['data']}`",
            kind,
            f"{found['n']['mean']:.0f}",
            *(over_draws(m, found.get(m)) for m in metrics),
        ]
        for row in chosen(report["summary"], engine="openvino", variant="fp32")
        for kind, found in row["by_kind"].items()
    ]
    if not rows:
        return "Not measured yet."
    return markdown(["data", "defect", "photos", *(TITLES[m] for m in metrics)], rows)


def sweeps_table(results: Path) -> str:
    """Each sweep around the defaults."""
    report = load(results, "quality-sweeps.json")
    names = list(dict.fromkeys(row["data"] for row in report["results"]))
    masked = [n for n in names if any(r["aupro"] for r in chosen(report["results"], data=n))]
    head = ["choice", "value", *(f"`{n}`" for n in names), *(f"AUPRO `{n}`" for n in masked), "k"]
    rows = []
    for sweep in dict.fromkeys(row["sweep"] for row in report["results"]):
        points = chosen(report["results"], sweep=sweep)
        for label in dict.fromkeys(row["label"] for row in points):
            found = {name: chosen(points, label=label, data=name) for name in names}
            areas = [
                over_draws("image_auroc", spread([row["image_auroc"] for row in found[name]]))
                for name in names
            ]
            overlaps = [
                figure("aupro", mean(row["aupro"] for row in found[name])) for name in masked
            ]
            ks = " / ".join(str(round(mean(sum(r["k"]) for r in found[n]))) for n in names)
            default = label == report["default"][sweep]
            rows.append([sweep, f"**{label}**" if default else label, *areas, *overlaps, ks])
    note = (
        "Image AUROC unless said; the default is bold, k is that of all layers together, of "
        f"{' / '.join(names)}. Where a spread is given: over {draws_by_sweep(report['results'])}."
    )
    return f"{markdown(head, rows)}\n\n{note}"


def choice_table(results: Path) -> str:
    """The variance that painted defects choose beside what test labels say."""
    report = load(results, "quality-choice.json")
    names = [one["data"] for one in report["summary"]]
    head = ["variance"]
    for name in names:
        head += [f"`{name}`, separation", "image AUROC"]
    rows = []
    for variance in dict.fromkeys(row["variance"] for row in report["results"]):
        cells = [f"**{variance:g}**" if variance == report["default"] else f"{variance:g}"]
        for summary in report["summary"]:
            for row in chosen(report["results"], variance=variance, data=summary["data"]):
                separation, area = f"{row['separation']:.2f}", f"{row['image_auroc']:.4f}"
                cells.append(f"**{separation}**" if variance == summary["chosen"] else separation)
                cells.append(f"**{area}**" if variance == summary["best"] else area)
        rows.append(cells)

    def agreement(one: Row) -> str:
        rank = one["rank_correlation"]
        return "" if rank is None else f"; rank correlation of the two columns {rank:.2f}"

    told = [
        f"* `{one['data']}`: chosen {one['chosen']:g}, with an image AUROC of "
        f"{one['image_auroc']:.4f}; test labels would choose {one['best']:g}, with "
        f"{one['best_image_auroc']:.4f}; the default has {default['image_auroc']:.4f}"
        f"{agreement(one)}."
        for one in report["summary"]
        for default in chosen(report["results"], data=one["data"], variance=report["default"])
    ]
    note = "Bold: the default, and the largest value of each column."
    return "\n\n".join([markdown(head, rows), note, "\n".join(told)])


def cuts_table(results: Path) -> str:
    """What grouping near-copies does to the thresholds."""
    report = load(results, "quality-sweeps.json")
    names = list(dict.fromkeys(row["data"] for row in report["cuts"]))
    rates = list(dict.fromkeys(row["fpr"] for row in report["cuts"]))
    head = ["cut"]
    for name in names:
        head += [f"scenes (`{name}`)", *(f"rejected at {rate:.0%}" for rate in rates)]
    rows = []
    for cut in dict.fromkeys(row["cut"] for row in report["cuts"]):
        cells = ["no groups" if cut is None else f"{cut:g}"]
        for name in names:
            found = chosen(report["cuts"], cut=cut, data=name)
            cells.append(f"{found[0]['scenes']} of {found[0]['photos']}")
            cells += [f"{row['false_reject_rate']:.1%}" for row in found]
        rows.append(cells)
    return markdown(head, rows)
