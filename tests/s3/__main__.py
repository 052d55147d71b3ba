"""A real S3 server from the shell: `python -m tests.s3 start DIR`, and what else can be done to it.

`start` prints settings as KEY=VALUE lines: `set -a; eval "$(python -m tests.s3 start DIR)"`.
"""

import argparse
import sys
from pathlib import Path

from tests.s3.ceph import BUCKET, CephS3, Daemon
from tests.s3.packages import CannotRun

ACTIONS = {
    "start": "start it, on the data in DIR if any, and print its settings",
    "stop": "stop it in good order; the data stay",
    "kill": "kill -9",
    "pause": "freeze: requests hang, and may land later",
    "resume": "go on after a pause",
    "status": "which daemons are up",
    "wipe": "kill it and delete DIR",
}


def main() -> int:
    options = _parser().parse_args()
    server = CephS3(options.dir, options.port)
    try:
        match options.action:
            case "start":
                server.start()
                settings = server.settings | {"S3_URL": f"s3://{BUCKET}"}
                sys.stdout.writelines(f"{name}={value}\n" for name, value in settings.items())
            case "status":
                up = {daemon: server.is_up(daemon) for daemon in Daemon}
                sys.stdout.writelines(
                    f"{name} {'up' if is_up else 'down'}\n" for name, is_up in up.items()
                )
                return int(not all(up.values()))
            case "stop" | "wipe":
                getattr(server, options.action)()
            case "kill" | "pause" | "resume":
                getattr(server, options.action)(*options.daemons)
    except CannotRun as reason:
        sys.stderr.write(f"the real S3 server: {reason}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    actions = "\n".join(f"  {name:7} {what}" for name, what in ACTIONS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.s3",
        description="A real S3 server on 127.0.0.1: Ceph, from Debian's packages, without root.",
        epilog=f"actions:\n{actions}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("dir", type=Path, metavar="DIR", help="where it keeps everything")
    parser.add_argument(
        "daemons",
        nargs="*",
        type=Daemon,
        metavar="DAEMON",
        help="mon, osd or rgw, for kill, pause and resume; all if none is given",
    )
    parser.add_argument("--port", type=int, help="the first of ten ports; free ones if not given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
