"""Every way to adapt MiniLM to the sentiment of movie snippets, by one word.

    python -m fmjax.train --config configs/bert/peft.py:lora --workdir runs/lora
    python -m fmjax.train --config configs/bert/peft.py:adalora --workdir runs/adalora

'full' trains everything, 'probe' the classifier alone, 'top' that, the pooler and the
last block, 'bitfit' the biases (Ben Zaken et al. 2022); 'houlsby', 'pfeiffer', 'lora',
'dora', 'adalora', 'ia3', 'prefix' and 'prompt' train what the transform of that name
adds, and the classifier (Houlsby et al. train the norms too: --config.optim.train=
"classify|adapter_|norm/"). Another family, or a transform of one's own, is the same
config with other names: --config.transforms="{'lora': {'rank': 4}}". Learning rates
have the papers' orders of magnitude; experiments/peft/README.md says which are best in
64 steps, and what a step costs. ':tiny' is LoRA, and needs no network.
"""

from ml_collections import ConfigDict

from configs.bert import sentiment

# What is trained (a pattern over parameter paths; None: all), learning rate, transform.
METHODS: dict[str, tuple[str | None, float, dict]] = {
    "full": (None, 1e-4, {}),
    "top": ("classify|pooler|layer5/", 2e-4, {}),
    "probe": ("classify", 3e-3, {}),
    "bitfit": ("classify|bias$", 1e-3, {}),
    "houlsby": (
        "classify|adapter_",
        1e-3,
        dict(adapter=dict(kind="houlsby", width=32)),
    ),
    "pfeiffer": (
        "classify|adapter_",
        1e-3,
        dict(adapter=dict(kind="pfeiffer", width=64)),
    ),
    "lora": ("classify|lora_", 1e-3, dict(lora=dict(rank=4, alpha=8.0))),
    "dora": ("classify|lora_", 1e-3, dict(lora=dict(rank=4, alpha=8.0, dora=True))),
    "adalora": ("classify|adalora_", 2e-3, dict(adalora=dict(rank=3, alpha=8.0))),
    "ia3": ("classify|ia3_", 5e-3, dict(ia3=dict())),
    "prefix": ("classify|prefix_", 5e-3, dict(prefix=dict(length=16))),
    "prompt": ("classify|prompt$", 5e-2, dict(prompt=dict(length=20, keep=1))),
}


def get_config(arg: str = "lora") -> ConfigDict:
    if arg not in (*METHODS, "tiny"):
        known = ", ".join(map(repr, (*METHODS, "tiny")))
        raise ValueError(f"no variant {arg!r}: {known}")
    c = sentiment.get_config("tiny" if arg == "tiny" else "minilm")
    trained, c.optim.lr, transforms = METHODS["lora" if arg == "tiny" else arg]
    c.transforms = transforms
    c.optim.train = trained
    if trained:
        c.checkpoint.trained_only = True
    if c.init_from:
        added = trained.split("|", 1)[1] if trained and transforms else None
        c.init_from.missing = "^classify/" + (f"|{added}" if added else "")
    if arg == "adalora":
        # The same number of singular values in the end as LoRA's on query and value.
        c.optim.adalora = dict(rank=4 * 2 / 6, start="10%", finish="30%", every=10)
    return c
