"""The articles' recipes as a user of Keras writes them: ``Sequential``, GradientTape, an optimiser."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from adapters._recipes import Script, answer, neuron_masks
from adapters._tensorflow_loop import clip_gradients, make_optimizer, mask_weights, penalty_of


def build(model: Any, params: list[Any], shape: tuple[int, ...]) -> Any:
    """Return the Keras model with the given initial parameters."""
    layers: list[Any] = [keras.Input(shape)]
    for layer in model:
        name = layer["operation"].removeprefix("layer.")
        if name == "dense":
            layers.append(keras.layers.Dense(layer["units"]))
        elif name == "conv2d":
            layers.append(keras.layers.Conv2D(layer["filters"], layer["kernel"]))
        else:
            kinds: dict[str, Any] = {
                "relu": keras.layers.ReLU,
                "flatten": keras.layers.Flatten,
                "avg_pool2d": keras.layers.AveragePooling2D,
                "max_pool2d": keras.layers.MaxPooling2D,
            }
            layers.append(kinds[name](*([layer["window"]] if "window" in layer else [])))
    network = keras.Sequential(layers)
    network.set_weights(params)
    return network


def loss_of(description: Any, y: Any, targets: Any) -> Any:
    """Return the mean loss."""
    if description["operation"] == "loss.mse":
        return tf.reduce_mean(tf.math.squared_difference(y, targets))
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, y))


def neuron_gradients(network: Any, x: Any, targets: Any) -> list[Any]:
    """Return each hidden unit's mean |∂ℓ_n/∂z_n|."""
    hidden = [n for n in network.layers if isinstance(n, keras.layers.Dense)][:-1]
    seen = []
    with tf.GradientTape() as tape:
        value = tf.constant(x)
        tape.watch(value)
        for layer in network.layers:
            value = layer(value)
            if layer in hidden:
                seen.append(value)
        loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, value))
    return [tf.reduce_mean(tf.abs(g), axis=0).numpy() for g in tape.gradient(loss, seen)]


def masks_of(script: Script, network: Any) -> list[Any]:
    """Return the masks that a script asks for."""
    how, weights = script.description["prune"], network.get_weights()
    if how["by"] == "neurons":
        assert script.score is not None
        gradients = neuron_gradients(network, *script.score)
        return neuron_masks(weights, [g >= how["threshold"] for g in gradients])
    chosen = [weights[i] for i in how["parameters"]]
    flat = tf.concat([tf.reshape(tf.abs(w), [-1]) for w in chosen], axis=0)
    count = round(how["amount"] * int(flat.shape[0]))
    lowest = tf.math.top_k(-flat, count).indices
    kept = np.ones(flat.shape[0], bool)
    kept[lowest.numpy()] = False
    pieces = np.split(kept, np.cumsum([w.size for w in chosen])[:-1])
    result: list[Any] = [None] * len(weights)
    for i, weight, piece in zip(how["parameters"], chosen, pieces, strict=True):
        result[i] = piece.reshape(weight.shape)
    return result


def shrink(how: Any, variables: list[Any], grads: list[Any]) -> None:
    """Shrink the weights whose gradients are small."""
    for i in how["parameters"]:
        small = tf.abs(grads[i]) <= np.float32(how["threshold"])
        variable = variables[i]
        variable.assign(tf.where(small, variable * (1 - how["rate"]), variable))


def run(script: Script) -> Any:
    """Train as the script says."""
    d = script.description
    network = build(d["model"], script.params, script.x[0].shape[1:])
    variables = [v.value for v in network.trainable_variables]
    stepper = make_optimizer(variables, d["optimizer"])
    masks: list[Any] = [None] * len(variables)
    losses, norms = [], []
    for step, (x, targets) in enumerate(zip(script.x, script.targets, strict=True)):
        if d.get("prune") and d["prune"]["step"] == step:
            masks = masks_of(script, network)
            mask_weights(stepper, variables, masks)
            stepper = make_optimizer(variables, d["optimizer"])
        with tf.GradientTape() as tape:
            loss = loss_of(d["loss"], network(x, training=True), tf.constant(targets))
            total = loss + penalty_of(variables, d["penalty"]) if d.get("penalty") else loss
        grads = tape.gradient(total, variables)
        if d.get("shrink"):
            shrink(d["shrink"], variables, grads)
        clipped, norm = clip_gradients(grads, d.get("clip"))
        stepper.apply(clipped, variables)
        mask_weights(stepper, variables, masks)
        losses.append(float(loss))
        norms.append(float(norm))
    return answer(losses, norms, network.get_weights(), masks)
