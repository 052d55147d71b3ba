"""Stands in for `vllm serve`: a server of chat completions with processes below it, and its faults.

    stand_in.py serve MODEL --host H --port P ... [--pids FILE] [--fault NAME] [--mild]

It has a child that hears no SIGTERM, as an engine may, and another in a session of its own; mild
ones hear it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MILD = "import time; time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {MILD}"


def flag(name: str, default: str = "") -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if flag("--fault") == "unhealthy":
            self._answer(503, {})
        else:
            self._answer(200, {"data": [{"id": sys.argv[2]}], "version": "stand-in"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = os.environ.get("VLLM_API_KEY")
        if flag("--fault") == "dies-of-its-first-request":
            os._exit(7)
        if flag("--fault") == "refuses":
            self._answer(500, {"error": {"message": "no"}})
        elif key and self.headers["Authorization"] != f"Bearer {key}":
            self._answer(401, {"error": "Unauthorized"})
        else:
            self._answer(200, completion(body))

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def completion(body: dict) -> dict:
    """A chat completion: a critique where one is asked for, else a sentence."""
    asked = json.dumps(body["messages"])
    text = "SCORE: 95\nIMPROVED_DESCRIPTION: a red cube." if "SCORE" in asked else "A red cube."
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
    }


def main() -> None:
    sys.stderr.write(f"stand-in for {sys.argv[2]}\n")
    if flag("--fault") == "exits":
        sys.stderr.write("CUDA out of memory, say\n")
        sys.exit(3)
    child = [sys.executable, "-S", "-c", MILD if "--mild" in sys.argv else DEAF]
    engine, apart = subprocess.Popen(child), subprocess.Popen(child, start_new_session=True)
    if path := flag("--pids"):
        with Path(path).open("a") as file:
            file.write(json.dumps([os.getpid(), engine.pid, apart.pid]) + "\n")
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    time.sleep(float(flag("--slow", "0")))
    ThreadingHTTPServer((flag("--host"), int(flag("--port"))), Handler).serve_forever()


if __name__ == "__main__":
    main()
