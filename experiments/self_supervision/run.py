"""SimCLR and MAE on Fashion-MNIST's images without labels: what have they learnt?

    python -m experiments.self_supervision.run [--seeds 1]

A small ResNet learns by contrast, a small ViT by painting hidden patches. Their frozen
features meet a linear probe and nearest neighbours, and the nets are trained further on
1 % and 10 % of the labels, with --seeds seeds; all beside the same nets from chance,
and taught by all labels. Interrupted and run again, it goes on where it was. Leaves
runs/self_supervision (--workdir): report.html, report.json, results.jsonl,
accuracy.svg, loss.svg, painted.png and the runs' folders.
"""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

from experiments import arms
from experiments.self_supervision import frozen
from fmjax import cli, config
from fmjax.reporting import figures, looking, page, pictures

# Of the labels: the share, the end of its runs' names, steps of 64.
FEW = {"1 %": (0.01, "", 150), "10 %": (0.1, "-tenth", 430)}


class Method(NamedTuple):
    """How a net learns without labels, and the config that it is then used by."""

    title: str
    pretrain: str
    classify: str
    begin: dict[str, Any]  # of init_from, beside its path
    supervised: str  # folder of experiments.fashion_mnist with the taught net
    rate: float  # on few labels


METHODS = {
    "simclr": Method(
        "SimCLR, ResNet-10",
        "configs/simclr/fashion_mnist.py",
        "configs/resnet/fashion_mnist.py:10",
        {"skip": r"^(project|norm)\d", "rename": (("^backbone/", ""),)},
        "resnet-10",
        0.02,
    ),
    "mae": Method(
        "MAE, ViT of 4 blocks",
        "configs/mae/fashion_mnist.py",
        "configs/vit/fashion_mnist.py:small",
        {"skip": r"^(decoder|mask_token)"},
        "vit-small",
        1e-3,
    ),
}


def settings_of(method: Method, tiny: bool) -> dict[str, dict[str, Any]]:
    """Settings of the trainings: pretrain, a share of the labels each, supervised."""
    if not tiny:
        found = {
            "pretrain": config.load(method.pretrain),
            "supervised": config.load(method.classify),
        }
        for asked, (share, _, steps) in FEW.items():
            few: dict[str, Any] = config.load(method.classify)
            few["data"]["share"] = share
            few |= {"batch_size": 64, "steps": f"{steps} steps"}
            few["optim"]["lr"] = method.rate
            few["evaluate"]["every"] = f"{steps} steps"
            few["checkpoint"]["every"] = f"{steps} steps"
            few["log"]["every"] = "20 steps"
            found[asked] = few
        return found
    pretrain = config.load(f"{method.pretrain}:tiny")
    few = config.load(f"{method.classify.partition(':')[0]}:tiny")
    few["data"] = dict(pretrain["data"])
    few["inputs"] = {"name": "image", "mean": 0.5, "std": 0.25}
    if method.title.startswith("SimCLR"):
        backbone = dict(pretrain["model"]["backbone"])
        few["model"] = {"classes": None, **backbone}
    else:
        encoder = ("patch", "width", "depth", "heads", "mlp_width", "image")
        few["model"] |= {k: pretrain["model"][k] for k in encoder}
        few["model"] |= {"channels": 3, "pool": "mean", "positions": "sincos"}
        few["model"] |= {"cls_token": True, "norm_last": True, "dropout": 0.0}
    return {"pretrain": pretrain, "supervised": few} | dict.fromkeys(FEW, few)


def measure(
    root: pathlib.Path,
    taught: pathlib.Path,
    method: Method,
    name: str,
    seeds: int,
    tiny: bool,
) -> dict[str, Any]:
    """Trains all that a method needs; its numbers on the test split."""
    settings, draws = settings_of(method, tiny), arms.draws(tiny)
    folder = root / name
    arms.fit(folder, settings["pretrain"])
    begun = {"path": str(folder), "missing": "^classify/"} | method.begin
    runs: dict[str, dict[str, list[pathlib.Path]]] = {
        "pre-trained": {},
        "from chance": {},
        "all labels": {
            "all": arms.seeds(
                taught / method.supervised, "seed", settings["supervised"], 1
            )
        },
    }
    for asked, (_, end, _) in FEW.items():
        for arm, short, more in (
            ("pre-trained", "few", {"init_from": begun}),
            ("from chance", "chance", {}),
        ):
            runs[arm][asked] = arms.seeds(
                root, f"{name}-{short}{end}", settings[asked] | more, seeds
            )
    found: dict[str, Any] = {"title": method.title, "trained": {}, "frozen": {}}
    for arm, shares in runs.items():
        found["trained"][arm] = {
            asked: arms.summary(**arms.predictions(folders, "test"), draws=draws)
            for asked, folders in shares.items()
        }
    # What the probes see of each net: learnt without labels, none, with all of them.
    one, whole = runs["from chance"]["1 %"][0], runs["all labels"]["all"][0]
    found["frozen"] = {
        "pre-trained": frozen.probes(folder, one, draws=draws),
        "from chance": frozen.probes(None, one, draws=draws),
        "all labels": frozen.probes(whole, whole, draws=draws),
    }
    found["steps"] = arms.steps([folder])[0]
    return found


def rows_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each net that was pre-trained, from chance, or taught."""
    return [
        {
            "model": one["title"],
            "net": arm,
            "linear": one["frozen"][arm]["linear_probe"],
            "knn": one["frozen"][arm]["knn"],
            "seeds": max(trained["seeds"] for trained in shares.values()),
        }
        | {
            asked: shares[asked]["accuracy"] if asked in shares else None
            for asked in (*FEW, "all")
        }
        for one in found.values()
        for arm, shares in one["trained"].items()
    ]


def main() -> int:
    parser = arms.parser(__doc__, "runs/self_supervision")
    parser.add_argument("--method", action="append", choices=METHODS, help="repeatable")
    parser.add_argument(
        "--taught",
        default="runs/fashion_mnist",
        type=pathlib.Path,
        help="where experiments.fashion_mnist has its nets, or will have them",
    )
    given = parser.parse_args()
    cli.cache()
    root = given.workdir
    taught = root / "taught" if given.tiny else given.taught
    found = {
        name: measure(root, taught, METHODS[name], name, given.seeds, given.tiny)
        for name in given.method or METHODS
    }
    rows = rows_of(found)
    arms.record_lines(
        root,
        [r | {"steps": f["steps"]} for f in found.values() for r in rows_of({"": f})],
    )
    shown = [
        (f"{row['model']}, {row['net']}, {asked}", row[key])
        for row in rows
        for key, asked in (
            ("linear", "linear probe"),
            ("knn", "20 neighbours"),
            *((share, f"{share} of labels") for share in FEW),
            ("all", "all labels"),
        )
        if row[key]
    ]
    low, high = ([value[k] for _, value in shown] for k in ("low", "high"))
    bars = figures.bars_with_intervals(
        [name for name, _ in shown],
        [value["value"] for _, value in shown],
        low,
        high,
        x="test accuracy",
    )
    arms.drawing(root / "accuracy.svg", bars)
    loss = figures.curves(
        {
            f"{found[name]['title']}, {split}": arms.curve(
                [root / name], f"{split}/loss"
            )
            for name in found
            for split in ("train", "validation")
        },
        "step",
        "loss without labels",
    )
    arms.drawing(root / "loss.svg", loss)
    training = [page.figure(loss, "Pre-training, each method's own loss")]
    if "mae" in found:
        painted = pictures.grid(frozen.painted(root / "mae"))
        (root / "painted.png").write_bytes(painted)
        caption = "Test images, what the encoder sees of them, what the decoder paints"
        training.append(page.figure(painted, caption))
    sections = [
        page.section(
            "Result",
            page.table(
                rows,
                [
                    "model",
                    "net",
                    page.column("linear", "linear probe [95 %]", ".3f"),
                    page.column("knn", "20 neighbours [95 %]", ".3f"),
                    *(page.column(s, f"trained on {s} [95 %]", ".3f") for s in FEW),
                    page.column("all", "trained on all [95 %]", ".3f"),
                    "seeds",
                ],
                "Test accuracy",
            ),
            page.figure(bars, "Test accuracy"),
        ),
        page.section("Pre-training", *training),
    ]
    for name, one in found.items():
        seen = looking.section(root / name, f"What it looks at: {one['title']}")
        sections += [seen] if seen else []
    path = page.write(
        root / "report.html", "Learning without labels", sections, data=found
    )
    for name, value in shown:
        print(f"{name}: {arms.shown(value)}")
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    cli.run(main)
