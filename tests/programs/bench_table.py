"""Reads what criterion prints, and shows it as a table, alone or against another tree's.

    bench_table.py collect FILE         standard input to lines of name, nanoseconds, throughput; what is there stays
    bench_table.py show FILE
    bench_table.py compare OLD NEW      the ratio of the fastest times of both
"""

import re
import sys

UNITS = {"ps": 1e-3, "ns": 1, "\u00b5s": 1e3, "us": 1e3, "ms": 1e6, "s": 1e9}


def collect(path):
    name = None
    with open(path, "a", encoding="utf-8") as out:
        for line in sys.stdin:
            if found := re.match(r"([\w-]+/\S+)", line):
                name = found.group(1)
            if found := re.search(r"time:\s+\[\S+ \S+ (\S+) (\S+) ", line):
                time = float(found.group(1)) * UNITS[found.group(2)]
            found = re.search(r"thrpt:\s+\[\S+ \S+ (\S+ \S+) ", line)
            if found and name:
                print(name, time, found.group(1), sep="\t", file=out)
                name = None
            if re.match(r"ring/wake: |ring: ", line):
                print(line.strip(), file=sys.stderr)


def read(path):
    best = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            name, time, throughput = line.rstrip("\n").split("\t")
            if name not in best or float(time) < best[name][0]:
                best[name] = (float(time), throughput)
    return best


def human(ns):
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= scale:
            return f"{ns / scale:.3g} {unit}"
    return f"{ns:.3g} ns"


def show(path):
    for name, (time, throughput) in read(path).items():
        print(f"{name:36} {human(time):>10}  {throughput:>16}")


def compare(old, new):
    old, new = read(old), read(new)
    print(f"{'':36} {'before':>10} {'now':>10} {'times as fast':>14}")
    for name in {**old, **new}:
        times = [human(side[name][0]) if name in side else "-" for side in (old, new)]
        ratio = f"{old[name][0] / new[name][0]:.2f}" if name in old and name in new else "-"
        print(f"{name:36} {times[0]:>10} {times[1]:>10} {ratio:>14}")


if __name__ == "__main__":
    {"collect": collect, "show": show, "compare": compare}[sys.argv[1]](*sys.argv[2:])
