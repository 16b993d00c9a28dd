"""Runs a program that io_uring is refused to, as container runtimes do. Usage: sealed.py PROGRAM ARGUMENTS"""

import ctypes
import os
import platform
import struct
import sys

IO_URING_SETUP = 425
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, EPERM = 0x7FFF0000, 0x00050000 | 1
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
instructions = [
    (LOAD, 0, 0, 4),
    (JUMP_IF_EQUAL, 0, 2, ARCHITECTURES[platform.machine()]),
    (LOAD, 0, 0, 0),
    (JUMP_IF_EQUAL, 1, 0, IO_URING_SETUP),
    (RETURN, 0, 0, ALLOW),
    (RETURN, 0, 0, EPERM),
]
code = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
buffer = ctypes.create_string_buffer(code)
program = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
    sys.exit(f"cannot seal: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[1], sys.argv[1:])
