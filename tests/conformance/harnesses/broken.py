"""A harness that is right except in one way: ``broken.py MODE CASE`` misbehaves on that case.

The modes that are not about a case misbehave at the start or at the stop.
"""

import json
import os
import signal
import subprocess
import sys
import time

import plain

MODE, CASE = sys.argv[1], sys.argv[2]


def say(text, end="\n"):
    sys.stdout.write(text + end)
    sys.stdout.flush()


def note(pid):
    if "HARNESS_PIDS" in os.environ:
        with open(os.environ["HARNESS_PIDS"], "a") as file:
            file.write(f"{pid}\n")


def leave_child():
    note(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)


def misbehave(request, right):
    """Do what MODE says; ``right`` is the answer that would be right."""
    text = json.dumps(right)
    if MODE == "wrong-json":
        say("{'id': nonsense")
    elif MODE == "json-list":
        say("[1, 2, 3]")
    elif MODE == "garbage-first":
        say("Loading weights... done")
        say(text)
    elif MODE == "truncated":
        say(text[: len(text) // 2], end="")
        sys.exit(0)
    elif MODE == "not-utf8":
        sys.stdout.buffer.write(b'{"id": "\xff\xfe"}\n')
        sys.stdout.flush()
    elif MODE == "wrong-id":
        say(json.dumps({**right, "id": "clip.global_norm/another"}))
    elif MODE == "no-id":
        say(json.dumps({"outputs": right["outputs"]}))
    elif MODE == "deep":
        say("[" * 100_000)
    elif MODE == "early-exit":
        sys.exit(0)
    elif MODE == "exit-code":
        sys.stderr.write("out of cheese\n")
        sys.exit(7)
    elif MODE == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif MODE == "hang":
        time.sleep(600)
    elif MODE == "eats-memory":
        hoard = []
        while True:
            hoard.append(b"x" * 10_000_000)
            time.sleep(0.002)
    elif MODE == "hoards-and-answers":
        globals()["hoard"] = b"x" * 300_000_000
        say(text)
    elif MODE == "child-eats-memory":
        eater = "h = b'x' * 300_000_000; import time; time.sleep(600)"
        note(subprocess.Popen([sys.executable, "-c", eater]).pid)
        time.sleep(600)
    elif MODE == "closes-output":
        os.close(1)
        time.sleep(600)
    elif MODE == "stderr-flood":
        sys.stderr.write("x" * 3_000_000 + "\n" * 50_000)
        sys.stderr.flush()
        say(text)
    elif MODE == "leaves-child":
        leave_child()
        say(text)
    elif MODE == "dies-leaving-child":
        leave_child()
        sys.exit(9)
    elif MODE == "answers-twice":
        say(text)
        say(text)
    elif MODE == "answers-late":
        time.sleep(3)
        say(text)
    elif MODE == "long-line":
        say(json.dumps({**right, "padding": "x" * 200_000}))
    elif MODE == "endless-line":
        while True:
            say("x" * 65536, end="")
    elif MODE == "errored":
        say(json.dumps({"id": request["id"], "errored": {"message": "KeyError: 'beta'"}}))
    elif MODE == "no-outputs":
        say(json.dumps({"id": request["id"], "done": True}))
    else:
        outputs = right["outputs"]
        change(outputs)
        say(text if MODE == "correct" else json.dumps({**right, "outputs": outputs, **EXTRA}))


EXTRA = {"mutated": ["grads"]} if MODE == "mutated" else {}
EXTRA |= {"mutated": 5} if MODE == "mutated-number" else {}


def change(outputs):
    first = outputs["grads"][0]
    changes = {
        "few-words": {"bits": first["bits"].split()[0]},
        "not-hex": {"bits": first["bits"].replace(first["bits"][0], "g")},
        "bits-number": {"bits": 12},
        "unknown-dtype": {"dtype": "float8"},
        "dtype-list": {"dtype": ["float32"]},
        "huge-shape": {"shape": [2**70]},
        "float-shape": {"shape": [float(n) for n in first["shape"]]},
        "shape-text": {"shape": "2x3"},
        "wrong-shape": {"shape": [*first["shape"], 1]},
        "wrong-dtype": {"dtype": "int32"},
    }
    first.update(changes.get(MODE, {}))
    if MODE == "tensor-for-list":
        outputs["grads"] = first
    elif MODE == "text-for-tensor":
        outputs["grads"][0] = "0.5"
    elif MODE == "missing-output":
        del outputs["total_norm"]
    elif MODE == "fewer-tensors":
        outputs["grads"].pop()
    elif MODE == "null-tensor":
        outputs["grads"][0] = None


def begin(answer):
    about = answer["implementation"]
    if MODE == "unknown-dial":
        about["dialect"] = {"clip.global_norm": {"colour": "red"}}
    elif MODE == "unknown-setting":
        about["dialect"] = {"clip.global_norm": {"nonfinite": "shrug"}}
    elif MODE == "dialect-text":
        about["dialect"] = {"clip.global_norm": "torch"}
    elif MODE == "dtypes-text":
        about["operations"] = {"clip.global_norm": {"dtypes": "float32"}}
    elif MODE == "other-protocol":
        answer["protocol"] = 2
    elif MODE == "banner":
        say("Welcome!")
    elif MODE == "start-exit":
        sys.stderr.write("licence expired\n")
        sys.exit(4)
    elif MODE == "start-not-installed":
        sys.stderr.write("not installed: cheese\n")
        sys.exit(3)
    elif MODE == "start-nothing":
        answer.pop("implementation")
    say(json.dumps(answer))


def main():
    note(os.getpid())
    for line in sys.stdin:
        request = json.loads(line)
        if request["cmd"] == "stop":
            if MODE == "ignores-stop":
                time.sleep(600)
            sys.exit(5 if MODE == "stop-code" else 0)
        answer = plain.answer(request, "")
        if request["cmd"] == "start":
            begin(answer)
            if MODE == "never-reads":
                time.sleep(600)
        elif request["id"].endswith("/" + CASE):
            misbehave(request, answer)
        else:
            say(json.dumps(answer))


if __name__ == "__main__":
    main()
