"""A pod with one container, made as Kubernetes does: CRI (runtime.v1), in as few of its fields as that takes.

Usage: pod.py SOCKET create IMAGE NAME NAMESPACE COMMAND   prints the ids of pod and container
       pod.py SOCKET start CONTAINER
       pod.py SOCKET remove POD"""

import os
import sys

import grpc

NETWORK_OF_HOST = b"\x08\x02"
READ_ONLY = b"\x18\x01"


def field(number, value):
    """A text, a message, or its fields; the length in two bytes."""
    value = value.encode() if isinstance(value, str) else b"".join(value) if isinstance(value, list) else value
    return bytes([number << 3 | 2, len(value) & 127 | 128, len(value) >> 7]) + value


def label(number, key, value):
    return field(number, [field(1, key), field(2, value)])


def mounts(*folders):
    there = filter(os.path.exists, folders)
    return b"".join(field(7, [field(1, path), field(2, os.path.realpath(path)), READ_ONLY]) for path in there)


def create(image, name, namespace, command):
    pod = [
        field(1, [field(1, name), field(2, "uid-of-" + name), field(3, namespace)]),
        label(6, "app", "cart"),
        field(8, [field(1, "/kubepods/burstable/pod" + name), field(2, [field(1, NETWORK_OF_HOST)])]),
    ]
    sandbox = first(call("RunPodSandbox", field(1, pod)))
    container = [
        field(1, [field(1, "app")]),
        field(2, [field(1, image)]),
        *(field(3, word) for word in ("/usr/bin/sh", "-c", command)),
        mounts("/usr", "/lib", "/lib64"),
        label(9, "tier", "front"),
        field(15, [field(2, [field(3, NETWORK_OF_HOST)])]),
    ]
    print(sandbox, first(call("CreateContainer", field(1, sandbox) + field(2, container) + field(3, pod))))


def start(container):
    call("StartContainer", field(1, container))


def remove(sandbox):
    call("StopPodSandbox", field(1, sandbox))
    call("RemovePodSandbox", field(1, sandbox))


def first(answer):
    """Its first field, a text."""
    return answer[2 : 2 + answer[1]].decode()


def call(method, request):
    ask = channel.unary_unary("/runtime.v1.RuntimeService/" + method)
    return ask(request, timeout=60, wait_for_ready=True)


channel = grpc.insecure_channel("unix:" + sys.argv[1])
globals()[sys.argv[2]](*sys.argv[3:])
