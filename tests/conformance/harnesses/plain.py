"""A harness written from the contract alone: plain Python lists and struct, nothing of this project.

``plain.py [MISTAKE]`` clips by the global norm; with ``per-tensor`` or ``max-for-min`` it does so wrongly.
"""

import json
import math
import platform
import struct
import sys

FORMATS = {"float32": ">f", "float64": ">d"}


def decode(tensor):
    form = FORMATS[tensor["dtype"]]
    return [struct.unpack(form, bytes.fromhex(word))[0] for word in tensor["bits"].split()]


def encode(values, dtype, shape):
    words = []
    for value in values:
        try:
            word = struct.pack(FORMATS[dtype], value)
        except OverflowError:
            word = struct.pack(FORMATS[dtype], math.copysign(math.inf, value))
        words.append(word.hex())
    return {"dtype": dtype, "shape": shape, "bits": " ".join(words)}


def norm_of(values, order):
    magnitudes = [abs(value) for value in values]
    if any(math.isnan(m) for m in magnitudes):
        return math.nan
    top = max(magnitudes, default=0.0)
    if top == 0.0 or math.isinf(top) or math.isinf(order):
        return top
    return top * math.fsum((m / top) ** order for m in magnitudes) ** (1 / order)


def clip(grads, max_norm, order, mistake):
    if not max_norm >= 0:
        raise ValueError(f"max_norm must be at least 0, got {max_norm}")
    if not order > 0:
        raise ValueError(f"ord must be greater than 0, got {order}")
    # An entry {"same_as": i} is the very tensor of entry i, which the norm counts once.
    present = [grad for grad in grads if grad is not None and "same_as" not in grad]
    dtypes = {grad["dtype"] for grad in present}
    wide = "float64" if "float64" in dtypes else "float32"
    total = norm_of([x for grad in present for x in decode(grad)], order)
    # The norm as it is reported: one that is beyond its format is infinite.
    reported = decode(encode([total], wide, []))[0]
    clipped = []
    for grad in grads:
        if grad is None:
            clipped.append(None)
            continue
        if "same_as" in grad:
            clipped.append(clipped[grad["same_as"]])
            continue
        values = decode(grad)
        norm = reported
        if mistake == "per-tensor":
            norm = decode(encode([norm_of(values, order)], wide, []))[0]
        clipped.append(
            encode(scaled(values, norm, max_norm, mistake), grad["dtype"], grad["shape"])
        )
    return {"grads": clipped, "total_norm": encode([total], wide, [])}


def scaled(values, norm, max_norm, mistake):
    if max_norm == math.inf:
        return values
    if math.isnan(norm) or math.isinf(norm):
        return [math.nan] * len(values)
    if mistake == "max-for-min" and norm > 0:
        return [x * max(1.0, max_norm / norm) for x in values]
    if norm <= max_norm:
        return values
    # Two factors, so that neither a quotient nor a product leaves the format on the way.
    return [x / norm * max_norm for x in values]


def answer(request, mistake):
    if request["cmd"] == "start":
        operations = {"clip.global_norm": {"dtypes": list(FORMATS)}}
        return {
            "protocol": 1,
            "implementation": {
                "name": "plain", "version": "1.0", "language": "Python",
                "language_version": platform.python_version(), "operations": operations,
            },
        }  # fmt: skip
    if request["operation"] != "clip.global_norm":
        return {"id": request["id"], "unsupported": {"reason": "it clips by the global norm"}}
    try:
        params = request["params"]
        limit, order = float(params["max_norm"]), float(params["ord"])
        outputs = clip(request["inputs"]["grads"], limit, order, mistake)
    except ValueError as error:
        return {"id": request["id"], "rejected": {"message": str(error)}}
    except Exception as error:
        return {"id": request["id"], "errored": {"message": repr(error)}}
    return {"id": request["id"], "outputs": outputs}


def main():
    mistake = sys.argv[1] if len(sys.argv) > 1 else ""
    for line in sys.stdin:
        request = json.loads(line)
        if request["cmd"] == "stop":
            return
        print(json.dumps(answer(request, mistake)), flush=True)


if __name__ == "__main__":
    main()
