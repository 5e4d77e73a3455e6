"""transformers' BERT with random weights, and what it computes. Needs torch."""

import numpy as np
import torch
import transformers


def model(case, seed=0):
    """A reference in evaluation mode, with weights far from any initialiser's."""
    config = transformers.BertConfig(**case.config(), attn_implementation="eager")
    net = getattr(transformers, case.kind)(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 2 and "embeddings" not in name:
                parameter.copy_(noise / parameter.shape[1] ** 0.5)
            elif "LayerNorm.weight" in name:
                parameter.copy_(1 + 0.2 * noise)
            else:
                parameter.copy_(0.3 * noise)
    return net


def compute(net, given):
    """Intermediates, outputs, loss and gradients by name; see bert_cases."""
    given = {k.removeprefix("input/"): torch.tensor(v) for k, v in given.items()}
    out, hooks = {}, []
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.LayerNorm) and (
            name != "cls.predictions.decoder"  # its output is output/0
        ):

            def keep(_module, _inputs, output, name=name):
                out[f"act/{name}"] = output

            hooks.append(module.register_forward_hook(keep))

    long = {k: v.long() for k, v in given.items() if v.dtype == torch.int32}
    feed = {
        "input_ids": long["tokens"],
        "token_type_ids": long["types"],
        "attention_mask": given["mask"].long(),
    }
    if "first" in given:
        result = net(**feed, start_positions=long["first"], end_positions=long["last"])
        outputs, loss = (result.start_logits, result.end_logits), result.loss
    elif "positions" in given and "next" not in given:
        labels = torch.full_like(long["tokens"], -100)
        labels.scatter_(1, long["positions"], long["targets"])
        result = net(**feed, labels=labels)
        outputs, loss = (result.logits,), result.loss
    elif "positions" in given:
        labels = torch.full_like(long["tokens"], -100)
        labels.scatter_(1, long["positions"], long["targets"])
        result = net(**feed, labels=labels, next_sentence_label=long["next"])
        outputs = result.prediction_logits, result.seq_relationship_logits
        loss = result.loss
    elif "label" in given:
        result = net(**feed, labels=long["label"])
        outputs, loss = (result.logits,), result.loss
    else:
        result = net(**feed)
        outputs = result.last_hidden_state, result.pooler_output
        loss = (outputs[0] ** 2 * given["hidden_weight"]).mean()
        loss = loss + (outputs[1] ** 2 * given["pooled_weight"]).mean()
    for hook in hooks:
        hook.remove()

    net.zero_grad()
    loss.backward()
    out |= {f"output/{i}": tensor for i, tensor in enumerate(outputs)}
    out |= {f"grad/{name}": p.grad for name, p in net.named_parameters()}
    out["loss"] = loss
    return {name: np.asarray(tensor.detach()) for name, tensor in out.items()}
