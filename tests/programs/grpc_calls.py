"""A gRPC server and its client. Usage: grpc_calls.py

Calls each kind of method, some with compression, and one that fails."""

from concurrent import futures

import grpc


def echo(request, context):
    if request == b"fail":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: é")
    return request * 2


def numbers(request, _):
    yield from (bytes([n]) * 1000 for n in range(int(request)))


def total(parts, _):
    return str(sum(len(part) for part in parts)).encode()


def mirror(parts, _):
    yield from parts


plain = dict(request_deserializer=None, response_serializer=None)
handlers = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo, **plain),
    "Numbers": grpc.unary_stream_rpc_method_handler(numbers, **plain),
    "Total": grpc.stream_unary_rpc_method_handler(total, **plain),
    "Mirror": grpc.stream_stream_rpc_method_handler(mirror, **plain),
}
server = grpc.server(futures.ThreadPoolExecutor(4), compression=grpc.Compression.Gzip)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.v1.Things", handlers),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()

with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    call = lambda kind, name: getattr(channel, kind)(f"/test.v1.Things/{name}")
    assert call("unary_unary", "Echo")(b"hello") == b"hellohello"
    assert len(list(call("unary_stream", "Numbers")(b"7"))) == 7
    assert call("stream_unary", "Total")(iter([b"a" * 500, b"b" * 700])) == b"1200"
    assert len(list(call("stream_stream", "Mirror")(iter([b"x"] * 5)))) == 5
    try:
        call("unary_unary", "Echo")(b"fail")
        raise SystemExit("it did not fail")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND
server.stop(1).wait()
