"""An OTLP receiver that takes everything and looks at nothing, so that the benchmark's cores are the sender's.

Usage: `python otlp_sink.py grpc | http/protobuf`. It prints its port, and ends when its stdin does.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc

_BYTES_MAX = 64 << 20


class _TakesAll(grpc.GenericRpcHandler):
    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler:
        # Without (de)serializers, bytes stay bytes; an empty answer is a full success.
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")


class _HttpSink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- its name
        return


def main(protocol: str) -> None:
    if protocol == "grpc":
        server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", _BYTES_MAX)])
        server.add_generic_rpc_handlers((_TakesAll(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
    else:
        http = ThreadingHTTPServer(("127.0.0.1", 0), _HttpSink)
        port = http.server_port
        threading.Thread(target=http.serve_forever, daemon=True).start()
    print(port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
