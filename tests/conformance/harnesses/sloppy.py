"""A harness whose arithmetic is right and whose manners are not: ``sloppy.py MODE``."""

import json
import sys
import time

import plain

MODE = sys.argv[1]


def sloppy_tensor(tensor):
    if tensor is None or "bits" not in tensor:
        return tensor
    words = tensor["bits"].split()
    width = len(words[0]) if words else 8
    if MODE == "no-sign-of-zero":
        words = ["0" * width if word == "8" + "0" * (width - 1) else word for word in words]
    elif MODE == "flushes":
        words = ["0" * width if word[1:4] == "000" and width == 16 else word for word in words]
        words = [
            "0" * width if word[1:3] == "00" and int(word, 16) < 2**23 else word for word in words
        ]
    elif MODE == "little-endian":
        words = [bytes.fromhex(word)[::-1].hex() for word in words]
    elif MODE == "at-least-1d" and not tensor["shape"]:
        return {**tensor, "shape": [1]}
    return {**tensor, "bits": " ".join(words)}


def sloppy(answer, request, count):
    outputs = answer.get("outputs")
    if outputs is None:
        return answer
    if MODE == "echo" or (MODE == "remembers" and count % 2):
        return {**answer, "outputs": {**outputs, "grads": request["inputs"]["grads"],
                                      "total_norm": request["inputs"]["grads"][0]}}  # fmt: skip
    if MODE == "writes":
        return {**answer, "mutated": ["grads"]}
    if MODE == "writes-nothing-known":
        return {**answer, "mutated": ["weights"]}
    grads = outputs["grads"]
    if MODE == "drops-absent":
        grads = [grad for grad in grads if grad is not None]
    return {**answer, "outputs": {**outputs, "grads": [sloppy_tensor(g) for g in grads]}}


def main():
    count, kept = 0, []
    while line := sys.stdin.readline(65536 if MODE == "short-lines" else -1):
        try:
            request = json.loads(line)
        except ValueError:
            print(json.dumps({"id": None, "errored": {"message": "not JSON"}}), flush=True)
            continue
        if request["cmd"] == "stop":
            sys.exit(2 if MODE == "stop-code" else 0)
        answer = plain.answer(request, "")
        if request["cmd"] == "start":
            about = answer["implementation"]
            if MODE == "nameless":
                about["version"] = ""
            elif MODE == "other-ids":
                about["operations"]["clip_by_global_norm"] = {"dtypes": ["float32"]}
            elif MODE == "other-dtypes":
                about["operations"]["clip.global_norm"]["dtypes"].append("double")
            elif MODE == "unknown-dial":
                about["dialect"] = {"clip.global_norm": {"colour": "red"}}
            elif MODE == "dialect-of-nothing":
                about["dialect"] = {"clip.norm": {}}
            elif MODE == "no-operations":
                about["operations"] = {}
        elif MODE == "refuses-unknown" and "unsupported" in answer:
            answer = {"id": request["id"], "rejected": {"message": "unknown"}}
        elif MODE == "dies-of-malformed" and "errored" in answer:
            sys.exit(1)
        else:
            if MODE == "reversed":
                kept.append(answer)
                if len(kept) == 3 and kept[0]["id"] == "smoke/first":
                    for late in reversed(kept):
                        print(json.dumps(late), flush=True)
                    continue
                if request["id"].startswith("smoke/"):
                    continue
                kept = []
            answer = sloppy(answer, request, count := count + 1)
        if MODE == "wrong-id" and "id" in answer:
            answer["id"] = str(answer["id"]).upper()
        if MODE == "unflushed" and "id" in answer:
            kept.append(answer)
            continue
        print(json.dumps(answer), flush=True)
        if MODE == "chatters" and "id" in answer:
            print(json.dumps({"note": "done"}), flush=True)
    for late in kept if MODE == "unflushed" else ():
        print(json.dumps(late), flush=True)
    while MODE == "outlives":
        time.sleep(600)


if __name__ == "__main__":
    main()
