"""transformers' GPT-2, T5 and Marian with random weights, and what they compute."""

import numpy as np
import torch
import transformers
from transformers.pytorch_utils import Conv1D

TABLES = ("wte", "wpe", "shared", "relative_attention_bias", "embed_positions")


def model(case, seed=0, sharp=1.0):
    """A reference in evaluation mode, with weights far from any initialiser's.

    sharp: a factor on linear maps, so that generated texts have variety.
    """
    kind = getattr(transformers, case.kind)
    config = kind.config_class(**case.config(), attn_implementation="eager")
    net = kind(config).eval()
    if case.own_head:
        # Version 5 ties T5's always; files that have both are read as they are.
        shape = net.lm_head.weight.shape
        net.lm_head.weight = torch.nn.Parameter(torch.zeros(shape))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "embed_positions" in name:
                continue
            if any(table in name for table in TABLES):
                scaled = getattr(net.config, "scale_embedding", False)
                parameter.copy_(noise / case.width**0.5 if scaled else 0.5 * noise)
            elif parameter.ndim == 2:
                fan_in = parameter.shape[1]
                factor = sharp / fan_in**0.5
                if name.endswith("Attention.q.weight"):
                    factor /= net.config.d_kv**0.5  # T5 doesn't scale the scores
                parameter.copy_(factor * noise)
            elif "norm.weight" in name or ("ln_" in name and name.endswith("weight")):
                parameter.copy_(1 + 0.2 * noise)
            else:
                parameter.copy_(0.3 * noise)
        if hasattr(net, "final_logits_bias"):
            bias = net.final_logits_bias
            bias.copy_(0.3 * torch.randn(bias.shape, generator=generator))
    return net


def compute(case, net, given):
    """Intermediates, outputs, loss and gradients by name; see lm_cases."""
    given = {k.removeprefix("input/"): torch.tensor(v) for k, v in given.items()}
    out, hooks = {}, []
    for name, module in net.named_modules():
        norm = type(module).__name__.endswith("LayerNorm")
        if name != "lm_head" and (norm or isinstance(module, torch.nn.Linear | Conv1D)):

            def keep(_module, _inputs, output, name=name):
                out[f"act/{name}"] = output

            hooks.append(module.register_forward_hook(keep))
    feed = {
        "input_ids": given["tokens"].long(),
        "attention_mask": given["mask"].long(),
        "use_cache": False,
    }
    if "decoder_tokens" in given:
        feed["decoder_input_ids"] = given["decoder_tokens"].long()
    else:
        feed["position_ids"] = (given["mask"].long().cumsum(1) - 1).clip(0)
    logits = net(**feed).logits
    for hook in hooks:
        hook.remove()
    targets = given["targets"].long()
    if "decoder_tokens" not in given:
        targets = targets.masked_fill(~given["mask"], -100)
    flat = logits.reshape(-1, logits.shape[-1])
    loss = torch.nn.functional.cross_entropy(flat, targets.reshape(-1))
    net.zero_grad()
    loss.backward()
    out |= {"output/0": logits, "loss": loss}
    for name, parameter in net.named_parameters():
        if "embed_positions" not in name:
            grad = parameter.grad
            out[f"grad/{name}"] = torch.zeros(parameter.shape) if grad is None else grad
    return {name: np.asarray(tensor.detach()) for name, tensor in out.items()}
