"""As much of curl as docs/protocol.md uses, for machines that have none."""

import argparse
import sys
import time
from pathlib import Path

import urllib3

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("url")
parser.add_argument("-s", action="store_true")
parser.add_argument("-X", dest="method")
parser.add_argument("-H", dest="headers", action="append", default=[])
parser.add_argument("-d", dest="data")
parser.add_argument("--data-binary", dest="file")
parser.add_argument("-o", dest="output")
parser.add_argument("--retry", type=int, default=0)
parser.add_argument("--retry-delay", type=float, default=1.0)
parser.add_argument("--retry-connrefused", action="store_true")


def main() -> int:
    options = parser.parse_args()
    body = options.data.encode() if options.data is not None else None
    if options.file:
        body = Path(options.file.removeprefix("@")).read_bytes()
    headers = dict(header.split(": ", 1) for header in options.headers)
    method = options.method or ("GET" if body is None else "POST")
    for attempt in range(options.retry + 1):
        if attempt:
            time.sleep(options.retry_delay)
        try:
            reply = urllib3.request(method, options.url, headers=headers, body=body, retries=False)
        except urllib3.exceptions.HTTPError:
            continue
        if reply.status != 503:
            if options.output:
                Path(options.output).write_bytes(reply.data)
            else:
                sys.stdout.buffer.write(reply.data)
            return 0
    return 7


if __name__ == "__main__":
    sys.exit(main())
